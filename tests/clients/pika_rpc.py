"""The RPC client of pika's tutorial (RabbitMQ tutorial six), unchanged in how it talks: an exclusive callback queue
named by the broker, and reply_to and correlation_id as the only properties. Nothing of Rabbitry is known here.

Usage: pika_rpc.py AMQP_URL ROUTING_KEY BODY...   prints one reply a line.
"""

import sys
import uuid

import pika


class RpcClient:
    def __init__(self, url):
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        result = self.channel.queue_declare(queue="", exclusive=True)
        self.callback_queue = result.method.queue
        self.channel.basic_consume(
            queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True
        )
        self.response = None
        self.corr_id = None

    def on_response(self, ch, method, props, body):
        if self.corr_id == props.correlation_id:
            self.response = body

    def call(self, routing_key, body):
        self.response = None
        self.corr_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key=routing_key,
            properties=pika.BasicProperties(reply_to=self.callback_queue, correlation_id=self.corr_id),
            body=body,
        )
        while self.response is None:
            self.connection.process_data_events(time_limit=None)
        return self.response


client = RpcClient(sys.argv[1])
for body in sys.argv[3:]:
    print(client.call(sys.argv[2], body).decode())
client.connection.close()
