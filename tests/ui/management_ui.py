"""RabbitMQ's management UI, as a person uses it: what can be clicked, typed and read.

The pages draw themselves anew every five seconds, so what was just found may be gone when it is clicked. Everything
here is therefore tried again until it succeeds or the time is up.
"""

import shutil
import time

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

# The UI asks every 5 s, and the broker's figures are up to 5 s old. The rest is for busy machines.
SECONDS = 60
PAUSE = 0.1

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",  # does not work for root, and the only pages opened are the private broker's
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--force-device-scale-factor=1.25",
    "--window-size=1060,920",
]


def eventually(what, attempt):
    """The first result of the attempt that is neither an exception nor false."""
    end = time.monotonic() + SECONDS
    while True:
        last = None
        try:
            result = attempt()
            if result:
                return result
            last = f"got {result!r}"
        except (AssertionError, LookupError, ValueError, WebDriverException) as error:
            last = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {SECONDS} s ({last})")
        time.sleep(PAUSE)


class Message:
    """A message that "Get messages" shows."""

    def __init__(self, box):
        # It unrolls from top to bottom, and what is still hidden has no text: the end is read first.
        self.body = box.find_element(By.CSS_SELECTOR, "pre.msg-payload").text
        # A table in a table: the headers are one of the properties.
        names = box.find_elements(By.CSS_SELECTOR, "table.mini th")
        values = [name.find_element(By.XPATH, "following-sibling::td") for name in names]
        self.properties = {name.text.rstrip(":"): value.text for name, value in zip(names, values)}
        if not self.body or "" in self.properties:
            raise LookupError("a message that is not unrolled yet")


class ManagementUi:
    def __init__(self, url, profile):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in [*CHROMIUM_FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        self.driver.get(url)

    def close(self):
        self.driver.quit()

    def screenshot(self, path):
        self.driver.save_screenshot(str(path))

    # ---- pages

    def log_in(self, user, password):
        self._type("//input[@name='username']", user)
        self._type("//input[@name='password']", password)
        self._click("//input[@value='Login']")
        self._see("//input[@value='Log out']")

    def open_tab(self, name):
        self._click(f"//*[@id='tabs']//a[starts-with(normalize-space(), '{name}')]")  # later "Queues and Streams"
        self._see(f"//h1[starts-with(normalize-space(), '{name}')]")

    def open_queue(self, name):
        self.open_tab("Queues")
        self._click(f"//*[@id='main']//table//a[normalize-space()='{name}']")
        self._see(f"//h1[starts-with(normalize-space(), 'Queue ')]/b[normalize-space()='{name}']")

    def page(self):
        """The text of the page."""
        return self.driver.find_element(By.ID, "main").text

    # ---- a queue's page

    def ready(self):
        """How many messages wait."""
        self._open_section("Overview")
        legend = "//h3[starts-with(normalize-space(), 'Queued messages')]/following::table[@class='legend']"
        return int(self._see(f"{legend}//tr[normalize-space(th)='Ready']/td").text.replace(",", ""))

    def consumer_tags(self):
        section = self._open_section("Consumers")
        return [cell.text for cell in section.find_elements(By.XPATH, ".//tbody/tr/td[2]")]

    def type_message(self, body, **properties):
        self._open_section("Publish message")
        for number, (name, value) in enumerate(properties.items(), 1):
            self._type(f"//input[@name='props_{number}_mfkey']", name)
            self._type(f"//input[@name='props_{number}_mfvalue']", value)
        self._type("//textarea[@name='payload']", body)

    def publish(self):
        self._click("//input[@value='Publish message']")
        popup = "//div[@class='form-popup-info' and contains(., 'Message published.')]"
        self._see(popup)
        self._click(f"{popup}/span[normalize-space()='Close']")
        eventually("the pop-up is closed", lambda: not self.driver.find_elements(By.XPATH, popup))

    def messages(self, at_most):
        """What "Get messages" shows. The messages stay in the queue."""
        section = self._open_section("Get messages")
        self._type("//input[@name='count']", str(at_most))
        self._click("//input[@value='Get Message(s)']")
        return eventually(
            "messages are shown",
            lambda: [Message(box) for box in section.find_elements(By.CSS_SELECTOR, "#msg-wrapper .box")],
        )

    def close_section(self, heading):
        if "section-visible" in self._section(heading).get_attribute("class"):
            self._click(f"//h2[starts-with(normalize-space(), '{heading}')]")
            hider = self._section(heading).find_element(By.CLASS_NAME, "hider")
            eventually(f"section {heading} is closed", lambda: not hider.is_displayed())

    # ---- what all of these are made of

    def _see(self, xpath):
        def visible():
            element = self.driver.find_element(By.XPATH, xpath)
            return element if element.is_displayed() else None

        return eventually(f"{xpath} is seen", visible)

    def _click(self, xpath):
        def clicked():
            element = self.driver.find_element(By.XPATH, xpath)
            # The page's head stays where it is, and covers what is scrolled only to the edge.
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        eventually(f"{xpath} is clicked", clicked)

    def _type(self, xpath, text):
        def typed():
            element = self.driver.find_element(By.XPATH, xpath)
            element.clear()
            element.send_keys(text)
            return element.get_attribute("value") == text

        eventually(f"{xpath} is typed", typed)

    def _section(self, heading):
        return self._see(f"//h2[starts-with(normalize-space(), '{heading}')]/..")

    def _open_section(self, heading):
        section = self._section(heading)
        if "section-visible" not in section.get_attribute("class"):
            self._click(f"//h2[starts-with(normalize-space(), '{heading}')]")
        hider = section.find_element(By.CLASS_NAME, "hider")
        eventually(f"section {heading} is open", hider.is_displayed)
        return section
