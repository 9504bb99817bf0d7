use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;

use crate::app::{App, WorkError};
use crate::broker::{BrokerError, BrokerUser, HEARTBEATS, Live, RESULTS, at, at_most, classic};
use crate::lost_queues;

/// Makes what has to be there before anything is sent: exchanges, the service's queues, and the queue and user of every
/// endpoint and client, which a new broker has not.
pub(super) async fn prepare(app: &App, live: &Live) -> Result<(), WorkError> {
    let channel = live.channel().await?;
    for name in [RESULTS, HEARTBEATS] {
        channel
            .exchange_declare(
                name.into(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions {
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                },
                FieldTable::default(),
            )
            .await
            .map_err(at("declaring an exchange"))?;
        channel
            .queue_declare(name.into(), QueueDeclareOptions::durable(), classic())
            .await
            .map_err(at("declaring a queue"))?;
        channel
            .queue_bind(
                name.into(),
                name.into(),
                format!("*.{name}").into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(at("binding a queue"))?;
    }
    at_most(channel.close(200, "done".into())).await;

    let present = app.broker.management().users().await.map_err(BrokerError::from)?;
    let endpoints = app.store.all_endpoints().await?;
    lost_queues::make_all(app, live, &endpoints).await?;
    for endpoint in endpoints {
        let user = BrokerUser::Endpoint(endpoint.id, endpoint.registration.kind);
        if endpoint.has_broker_user() && !present.contains(&user.name()) {
            app.broker.put_user(&user, endpoint.rotation).await?;
        }
    }
    for client in app.store.clients().await? {
        let user = BrokerUser::Client(client.id);
        if client.has_broker_user() && client.revoked_at.is_none() && !present.contains(&user.name()) {
            app.broker.put_user(&user, client.rotation).await?;
        }
    }
    Ok(())
}
