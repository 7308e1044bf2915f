//! A connection of clients: made anew whenever it breaks, so that they go on whatever happens to it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::recorder::Recorder;
use crate::{history::Answer, support::vhost::header};

/// How long opening may take: a fault may swallow everything.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(100);
/// How long a confirm is waited for.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Where replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyTo {
    /// Direct reply-to.
    Direct,
    /// An exclusive queue, another one for each connection.
    Queue,
}

#[derive(Clone)]
struct Open {
    channel: Channel,
    reply_to: String,
}

pub struct Link {
    open: watch::Receiver<Option<Open>>,
    recorder: Arc<Recorder>,
    broken: watch::Sender<u64>,
    _keeper: AbortOnDropHandle<()>,
}

impl Link {
    pub fn start(url: String, reply_to: ReplyTo, recorder: Arc<Recorder>) -> Self {
        let (sender, open) = watch::channel(None);
        let broken = watch::Sender::new(0);
        let keeper = keep_open(url, reply_to, Arc::clone(&recorder), sender, broken.subscribe());
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        Self { open, recorder, broken, _keeper: keeper }
    }

    /// Drops the connection as a requester does that has gone; another one is opened.
    pub fn drop_connection(&self) {
        self.broken.send_modify(|times| *times += 1);
    }

    /// Publishes an ask once, as soon as there is a connection. Its confirm is written down when it comes.
    pub async fn publish(&self, index: usize, queue: &str, body: &[u8], properties: BasicProperties) -> bool {
        let mut open = self.open.clone();
        let Ok(Some(open)) = open.wait_for(Option::is_some).await.map(|open| open.clone()) else {
            return false;
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties
            .with_reply_to(open.reply_to.as_str().into())
            .with_correlation_id(self.recorder.token(index).into());
        self.recorder.sent(index);
        let publish = open.channel.basic_publish("".into(), queue.into(), options, body, properties);
        let Ok(confirm) = publish.await else { return false };
        let recorder = Arc::clone(&self.recorder);
        tokio::spawn(async move {
            if let Ok(Ok(confirmation)) = timeout(CONFIRM_TIMEOUT, confirm).await {
                match confirmation {
                    Confirmation::Ack(None) => recorder.confirmed(index),
                    Confirmation::Ack(Some(_)) | Confirmation::Nack(_) => recorder.refuse(),
                    Confirmation::NotRequested => {}
                }
            }
        });
        true
    }
}

async fn keep_open(
    url: String,
    reply_to: ReplyTo,
    recorder: Arc<Recorder>,
    state: watch::Sender<Option<Open>>,
    mut broken: watch::Receiver<u64>,
) {
    loop {
        if let Ok(Ok((connection, open, mut replies))) = timeout(OPEN_TIMEOUT, connect(&url, reply_to)).await
        {
            broken.mark_unchanged();
            state.send_replace(Some(open));
            loop {
                tokio::select! {
                    reply = replies.next() => match reply {
                        Some(Ok(reply)) => take(&recorder, &reply),
                        _ => break,
                    },
                    _ = broken.changed() => break,
                }
            }
            state.send_replace(None);
            // The broker may not answer any more.
            let _ = timeout(PAUSE, connection.close(200, "gone".into())).await;
        }
        sleep(PAUSE).await;
    }
}

async fn connect(url: &str, reply_to: ReplyTo) -> lapin::Result<(Connection, Open, Consumer)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let queue = match reply_to {
        ReplyTo::Direct => "amq.rabbitmq.reply-to".to_owned(),
        ReplyTo::Queue => {
            let name = format!("reply.faults.{}", uuid::Uuid::now_v7());
            let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), exclusive, FieldTable::default()).await?;
            name
        }
    };
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
    let consumer = consume.await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, Open { channel, reply_to: queue }, consumer))
}

fn take(recorder: &Recorder, reply: &Delivery) {
    let properties = &reply.properties;
    let text = |property: &Option<lapin::types::ShortString>| {
        property.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    let status = match header(reply, "status") {
        Some(AMQPValue::LongInt(status)) => u16::try_from(status).unwrap_or_default(),
        _ => 0,
    };
    let answer = Answer {
        at: Duration::ZERO,
        status,
        kind: text(properties.kind()),
        body: reply.data.clone(),
        replayed: header(reply, "replayed") == Some(AMQPValue::Boolean(true)),
    };
    recorder.replied(&text(properties.correlation_id()), answer);
}
