//! A toy service whose commands name two keys, and remove what they name: accounts, and transfers between them. Whatever
//! happens, the sum over all accounts is what was paid in.

use rabbitry::{
    Code, Command, Entity, List, Needs, Problem, Rows, Spec, Table, columns, service, text, whole,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

text! {
    /// Whose account it is.
    pub struct Name { max: 20, pattern: "^[a-z][a-z0-9-]*$", otherwise: "a name has 1 to 20 of a-z, 0-9 and -" }
}

whole! {
    /// Money.
    pub struct Amount("an amount is": 0 => 1_000_000_000);
}

/// An account
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    pub name: Name,
    pub balance: Amount,
}

impl Entity for Account {
    type Key = Name;
    const TABLE: Table = Table {
        name: "accounts",
        sqlite: &[("V1__accounts", include_str!("accounts.sqlite.sql"))],
        postgres: &[("V1__accounts", include_str!("accounts.postgres.sql"))],
    };
    columns!(name, balance);
}

service! {
    /// The bank.
    pub enum Bank("bank") of Account {
        Create(Create), Get(Get), Transfer(Transfer), Close(Close), List(List<Name>),
    }
}

pub const NO_ACCOUNT: Code = Code::fatal("no_account", 404, "There is no such account");
pub const ACCOUNT_EXISTS: Code = Code::fatal("account_exists", 409, "The name is taken");
pub const TOO_LITTLE: Code = Code::fatal("too_little", 409, "The balance is too small");
pub const NOT_EMPTY: Code = Code::fatal("not_empty", 409, "There is money in it");
pub const SAME_ACCOUNT: Code = Code::fatal("same_account", 409, "It takes two accounts");

/// Open an account
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Whose
    pub name: Name,
    /// What is paid in
    #[arg(long)]
    pub balance: Amount,
}

impl Command<Account> for Create {
    const SPEC: Spec = Spec::write("create").created();
    type Output = Account;

    fn needs(&self) -> Needs<'_, Account> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Account>) -> Result<Account, Problem> {
        if rows.get(&self.name).is_some() {
            return Err(Problem::new(ACCOUNT_EXISTS, format!("there is an account {} already", self.name)));
        }
        let account = Account { name: self.name.clone(), balance: self.balance };
        rows.put(account.clone());
        Ok(account)
    }
}

/// Show an account
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Whose
    pub name: Name,
}

impl Command<Account> for Get {
    const SPEC: Spec = Spec::read("get");
    type Output = Account;

    fn needs(&self) -> Needs<'_, Account> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Account>) -> Result<Account, Problem> {
        rows.existing(&self.name, NO_ACCOUNT)
    }
}

/// Move money from one account to another
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Who pays
    pub from: Name,
    /// Who gets it
    pub to: Name,
    /// How much
    pub amount: Amount,
}

/// What a transfer leaves
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transferred {
    pub from: Account,
    pub to: Account,
}

impl Command<Account> for Transfer {
    const SPEC: Spec = Spec::write("transfer");
    type Output = Transferred;

    fn needs(&self) -> Needs<'_, Account> {
        Needs::Keys(vec![&self.from, &self.to])
    }

    fn apply(&self, rows: &mut Rows<Account>) -> Result<Transferred, Problem> {
        if self.from == self.to {
            return Err(Problem::new(SAME_ACCOUNT, format!("{} pays itself", self.from)));
        }
        let (mut from, mut to) =
            (rows.existing(&self.from, NO_ACCOUNT)?, rows.existing(&self.to, NO_ACCOUNT)?);
        let amount = self.amount.get();
        let less = Amount::try_from(from.balance.get() - amount);
        let more = Amount::try_from(to.balance.get() + amount);
        let (Ok(less), Ok(more)) = (less, more) else {
            let detail = format!("{} has {}", self.from, from.balance);
            return Err(Problem::new(TOO_LITTLE, detail));
        };
        (from.balance, to.balance) = (less, more);
        rows.put(from.clone());
        rows.put(to.clone());
        Ok(Transferred { from, to })
    }
}

/// Close an account that is empty
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// Whose
    pub name: Name,
}

impl Command<Account> for Close {
    const SPEC: Spec = Spec::write("close");
    type Output = Account;

    fn needs(&self) -> Needs<'_, Account> {
        Needs::Key(&self.name)
    }

    fn apply(&self, rows: &mut Rows<Account>) -> Result<Account, Problem> {
        let account = rows.existing(&self.name, NO_ACCOUNT)?;
        if account.balance.get() > 0 {
            return Err(Problem::new(NOT_EMPTY, format!("{} has {}", self.name, account.balance)));
        }
        rows.remove(&self.name);
        Ok(account)
    }
}
