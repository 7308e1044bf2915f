//! One connection's life, from its consumers' start to whatever ends it.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use lapin::{Channel, Connection, ConnectionState, Event};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Context,
    end::{End, Pace, SessionError},
    lane::Lane,
};
use crate::{
    amqp::connection::{BrokerUrl, STORE_ID_PROPERTY, STORE_PROPERTY, close, connect_telling},
    limits::{CLOSE_TIMEOUT, SESSION_OPEN_TIMEOUT},
    service::{Access, Service, Spec},
};

/// Opens a connection and consumes until the first of its lanes ends; then the others finish what they have in hand.
pub(super) async fn run<S: Service>(
    url: &BrokerUrl,
    name: &str,
    context: &Arc<Context<S>>,
    commands: &[Spec],
    pace: Pace,
    shutdown: &CancellationToken,
) -> Result<End, SessionError> {
    let told = [(STORE_PROPERTY, &*context.store_name), (STORE_ID_PROPERTY, context.store.id())];
    let connection = connect_telling(url, name, &told).await?;
    let drain = shutdown.child_token();
    let mut channels = Vec::new();
    let consuming = consume(&connection, &mut channels, context, commands, pace, &drain);
    let result = while_connected(&connection, consuming).await;
    close(&connection).await;
    drop(channels);
    match result {
        Ok(_) if shutdown.is_cancelled() => Ok(End::Shutdown),
        result => result,
    }
}

/// Cuts a session's work off soon after its connection has ended: lapin does not resolve every future then.
async fn while_connected(
    connection: &Connection,
    work: impl Future<Output = Result<End, SessionError>>,
) -> Result<End, SessionError> {
    let ended = ended(connection);
    let mut work = pin!(work);
    tokio::select! {
        biased;
        result = &mut work => result,
        error = ended => match timeout(CLOSE_TIMEOUT, work).await {
            Ok(result @ Err(_)) => worse(Err(error.into()), result),
            _ => Err(error.into()),
        },
    }
}

/// Returns once the connection has ended, and why.
fn ended(connection: &Connection) -> impl Future<Output = lapin::Error> {
    let mut events = connection.events_listener();
    // What happened before the listener was there is not heard of.
    let ended_before = !connection.status().connected();
    async move {
        let closed = || lapin::ErrorKind::InvalidConnectionState(ConnectionState::Closed).into();
        if ended_before {
            return closed();
        }
        loop {
            match events.next().await {
                // An error of a channel leaves the connection as it is.
                Some(Event::Error(error)) if !connection.status().connected() => return error,
                Some(_) => {}
                None => return closed(),
            }
        }
    }
}

async fn consume<S: Service>(
    connection: &Connection,
    channels: &mut Vec<Channel>,
    context: &Arc<Context<S>>,
    commands: &[Spec],
    pace: Pace,
    drain: &CancellationToken,
) -> Result<End, SessionError> {
    if let Some(same_store) = &context.same_store
        && !same_store.wait(connection, drain).await?
    {
        return Ok(End::Shutdown);
    }
    // Reads and writes are taken by two lanes, so that no read waits for a commit and no flood of the one starves
    // the other.
    let open_until = Instant::now() + SESSION_OPEN_TIMEOUT;
    let mut lanes = JoinSet::new();
    for access in [Access::Read, Access::Write] {
        let own = commands.iter().filter(|command| command.access == access);
        let own: Vec<_> = own.filter_map(|command| S::entry(command.name)).collect();
        if !own.is_empty() {
            let opened = Lane::open(connection, Arc::clone(context), access, &own, pace, drain.clone());
            let lane = timeout_at(open_until, opened).await.map_err(|_| SessionError::NotOpened)??;
            channels.extend(lane.channels());
            lanes.spawn(lane.run());
        }
    }
    let queues: Vec<_> = commands.iter().map(|command| command.name).collect();
    context.begun.store(true, Ordering::Relaxed);
    info!(?pace, commands = queues.join(","), "consuming");
    let mut end = next_end(&mut lanes).await;
    drain.cancel();
    while !lanes.is_empty() {
        // After a failure the connection is as good as gone, and the other lanes can only drop what they have.
        let limit = if end.is_err() { CLOSE_TIMEOUT } else { Duration::MAX };
        match timeout(limit, next_end(&mut lanes)).await {
            Ok(other) => end = worse(end, other),
            Err(_) => lanes.abort_all(),
        }
    }
    end
}

/// What cannot be read closes everything else as a consequence, so it is the end that tells most.
fn worse(one: Result<End, SessionError>, other: Result<End, SessionError>) -> Result<End, SessionError> {
    match (&one, &other) {
        (Ok(_), Err(_)) | (Err(_), Err(SessionError::Poison(_))) => other,
        _ => one,
    }
}

async fn next_end(lanes: &mut JoinSet<Result<End, SessionError>>) -> Result<End, SessionError> {
    lanes
        .join_next()
        .await
        .map_or(Err(SessionError::Panicked), |joined| joined.unwrap_or(Err(SessionError::Panicked)))
}
