//! What a user endpoint asks of its platform before it takes the first task, while it may be told to end.

use std::time::Duration;

use endpoint_provider::{CheckError, Provider};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use waypost_engine::BlockId;

use crate::runtime::{Command, Ended, Specification, UserEndpointStatus};

/// The first and the longest wait before blocks that could not be listed are listed again.
const LIST_AGAIN_FIRST: Duration = Duration::from_millis(200);
const LIST_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Asks whether blocks could be launched as they are configured. What may yet change is given back in words; and so is
/// everything that is said of a user endpoint that ran before: it may have blocks, which are not to be given up.
pub(super) async fn check(
    provider: &mut dyn Provider,
    specification: &mut Specification,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Result<Option<String>, Ended> {
    let checked = tokio::select! {
        checked = provider.check() => checked,
        ended = told_to_end(specification, commands) => return Err(ended),
    };
    let why = match checked {
        Ok(()) => return Ok(None),
        Err(CheckError::Refused(why)) if !specification.saved => return Err(Ended::Failed(why)),
        Err(CheckError::Refused(why) | CheckError::Doubtful(why)) => why,
    };
    tracing::warn!(user_endpoint = %specification.name, %why, "blocks could not be launched at present");
    Ok(Some(why))
}

/// The blocks that exist, asked for until the platform answers or the user endpoint is told to end.
pub(super) async fn list(
    provider: &mut dyn Provider,
    specification: &mut Specification,
    status: &watch::Sender<UserEndpointStatus>,
    commands: &mut mpsc::UnboundedReceiver<Command>,
) -> Result<Vec<BlockId>, Ended> {
    let mut wait = LIST_AGAIN_FIRST;
    loop {
        let listed = tokio::select! {
            listed = provider.list() => listed,
            ended = told_to_end(specification, commands) => return Err(ended),
        };
        match listed {
            Ok(blocks) => return Ok(blocks),
            Err(error) => {
                tracing::warn!(user_endpoint = %specification.name, %error, again_in = ?wait, "the start waits for the list of blocks");
                status.send_modify(|status| status.last_error = Some(error.to_string()));
            }
        }
        tokio::select! {
            () = sleep(wait) => wait = (wait * 2).min(LIST_AGAIN_MAX),
            ended = told_to_end(specification, commands) => return Err(ended),
        }
    }
}

/// Waits for the order to end, and keeps newer credentials that come before it.
async fn told_to_end(specification: &mut Specification, commands: &mut mpsc::UnboundedReceiver<Command>) -> Ended {
    loop {
        match commands.recv().await {
            Some(Command::ReplaceCredentials(credentials)) => specification.credentials = *credentials,
            Some(Command::Stop(_)) | None => return Ended::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use endpoint_config::UserEndpointConfig;
    use endpoint_provider::ListError;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use uuid::Uuid;
    use waypost_protocol::{AmqpCredentials, QueueInfo};

    use super::*;
    use crate::runtime::Stop;

    /// A platform that gives this answer to the question whether it would launch blocks, or none.
    struct Platform(Option<Result<(), CheckError>>);

    impl Provider for Platform {
        fn check(&mut self) -> BoxFuture<'_, Result<(), CheckError>> {
            match self.0.clone() {
                Some(answer) => std::future::ready(answer).boxed(),
                None => std::future::pending().boxed(),
            }
        }

        fn list(&mut self) -> BoxFuture<'_, Result<Vec<BlockId>, ListError>> {
            std::future::pending().boxed()
        }

        fn start(&mut self, _: BlockId) {}

        fn delete(&mut self, _: BlockId) {}
    }

    fn specification(saved: bool) -> Specification {
        let queue = QueueInfo {
            connection_url: "amqp://me:word@127.0.0.1/".to_owned(),
            queue: "q".to_owned(),
            exchange: None,
            queue_publish_kwargs: None,
        };
        Specification {
            id: Uuid::from_u128(2),
            name: "mine".to_owned(),
            endpoint_id: Uuid::from_u128(1),
            directory: "/nowhere".into(),
            config: UserEndpointConfig::default(),
            config_text: String::new(),
            credentials: AmqpCredentials {
                endpoint_id: Uuid::from_u128(2),
                task_queue_info: queue.clone(),
                result_queue_info: queue.clone(),
                heartbeat_queue_info: queue,
            },
            saved,
        }
    }

    async fn checked(answer: Result<(), CheckError>, saved: bool) -> Result<Option<String>, Ended> {
        let (_sender, mut commands) = mpsc::unbounded_channel();
        check(&mut Platform(Some(answer)), &mut specification(saved), &mut commands).await
    }

    #[tokio::test]
    async fn a_configuration_that_the_platform_refuses_ends_a_new_user_endpoint_and_not_a_restored_one() {
        let refused = || Err(CheckError::Refused("so never".to_owned()));
        assert_eq!(
            checked(refused(), false).await,
            Err(Ended::Failed("so never".to_owned()))
        );
        assert_eq!(checked(refused(), true).await, Ok(Some("so never".to_owned())));
    }

    #[tokio::test]
    async fn what_may_change_is_said_and_ends_nobody() {
        for saved in [false, true] {
            let doubtful = Err(CheckError::Doubtful("not now".to_owned()));
            assert_eq!(checked(doubtful, saved).await, Ok(Some("not now".to_owned())));
            assert_eq!(checked(Ok(()), saved).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn a_stop_is_heard_while_the_platform_has_not_answered() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        sender.send(Command::Stop(Stop::Terminate)).unwrap();
        let mut specification = specification(true);
        let ended = check(&mut Platform(None), &mut specification, &mut commands).await;
        assert_eq!(ended, Err(Ended::Stopped));
        sender.send(Command::Stop(Stop::Drain)).unwrap();
        let (status, _) = watch::channel(UserEndpointStatus::new(specification.id, String::new()));
        let ended = list(&mut Platform(None), &mut specification, &status, &mut commands).await;
        assert_eq!(ended, Err(Ended::Stopped));
    }

    #[tokio::test]
    async fn credentials_that_come_while_the_platform_has_not_answered_count() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let mut fresh = specification(true).credentials;
        fresh.task_queue_info.connection_url = "amqp://me:fresh@127.0.0.1/".to_owned();
        sender
            .send(Command::ReplaceCredentials(Box::new(fresh.clone())))
            .unwrap();
        sender.send(Command::Stop(Stop::Terminate)).unwrap();
        let mut specification = specification(true);
        let _ = check(&mut Platform(None), &mut specification, &mut commands).await;
        assert_eq!(specification.credentials, fresh);
    }
}
