//! Whether everything is there that a worker needs, before it begins.

use lapin::{
    Channel, Connection,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};

use tokio::time::timeout;

use crate::{
    amqp::{
        connection::{BrokerUrl, ConnectError, close, connect, is_access_refused, is_not_found},
        dead_letters, exchange, queue,
    },
    limits::CONNECT_TIMEOUT,
    service::Spec,
};

/// The first queue or exchange of a service that the broker does not have.
pub(super) async fn missing(
    url: &BrokerUrl,
    connection_name: &str,
    service: &str,
    commands: &[Spec],
) -> Result<Option<String>, ConnectError> {
    let connection = connect(url, connection_name).await?;
    let looked = timeout(CONNECT_TIMEOUT, look(&connection, service, commands)).await;
    close(&connection).await;
    let unreachable = |reason: String| ConnectError::Unreachable { broker: url.to_string(), reason };
    match looked {
        Ok(looked) => looked.map_err(|error| unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("it does not say within {CONNECT_TIMEOUT:?} what queues it has"))),
    }
}

async fn look(connection: &Connection, service: &str, commands: &[Spec]) -> lapin::Result<Option<String>> {
    let mut missing = None;
    let queues = commands.iter().map(|command| queue(service, command.name));
    for name in queues.chain([dead_letters(service)]) {
        let channel = connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await;
        if is_missing(found.map(drop), &channel).await? {
            missing.get_or_insert(format!("queue {name:?}"));
        }
    }
    for name in [exchange(service), dead_letters(service)] {
        let channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let kind = lapin::ExchangeKind::Direct;
        let declare = channel.exchange_declare(name.as_str().into(), kind, passive, FieldTable::default());
        if is_missing(declare.await, &channel).await? {
            missing.get_or_insert(format!("exchange {name:?}"));
        }
    }
    Ok(missing)
}

/// Asking needs a right on some brokers; what may not be asked for is left to show when it is used.
async fn is_missing(found: lapin::Result<()>, channel: &Channel) -> lapin::Result<bool> {
    match found {
        Ok(()) => channel.close(200, "done".into()).await.map(|()| false),
        Err(error) if is_not_found(&error) => Ok(true),
        Err(error) if is_access_refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
