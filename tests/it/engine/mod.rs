//! The engine, with a toy service on the real broker.

mod contract;
mod outages;
mod poison;

use lapin::BasicProperties;

use crate::support::{
    toys::{Toys, Worker},
    vhost::{Replies, Vhost},
};

/// A virtual host with the toys' queues, one worker, and a queue for replies.
pub struct Scene {
    pub vhost: Vhost,
    pub toys: Toys,
    pub worker: Worker,
    pub replies: Replies,
}

impl Scene {
    pub async fn start() -> Self {
        let vhost = Vhost::with_service("toys", &["add", "total"]).await;
        let toys = Toys::new();
        let worker = Worker::start(&toys, vhost.url());
        let replies = Replies::listen(&vhost, "reply.test").await;
        vhost.wait_for_consumers("toys.add", 1).await;
        Self { vhost, toys, worker, replies }
    }

    /// Properties that ask for a reply.
    pub fn asking(&self) -> BasicProperties {
        BasicProperties::default().with_reply_to(self.replies.queue.as_str().into())
    }

    pub async fn add(&self, n: i64, properties: BasicProperties) {
        self.vhost.publish("toys.add", format!("{{\"n\":{n}}}").as_bytes(), properties).await;
    }

    /// Asks for the total, and sees that it is this.
    pub async fn read(&mut self, total: i64) {
        self.vhost.publish("toys.total", b"{}", self.asking()).await;
        assert_eq!(self.replies.next().await.data, format!("{{\"total\":{total}}}").as_bytes());
    }

    /// Stops the worker and asserts what is left in the queues.
    pub async fn end(self, left: &[(&str, u32)]) {
        self.worker.stop().await;
        self.vhost.assert_left(left).await;
    }
}
