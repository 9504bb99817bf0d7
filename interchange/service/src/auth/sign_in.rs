//! Whether a name and a password are right, and how often somebody may ask.

use std::sync::LazyLock;

use secrecy::SecretString;

use super::clients::verify;
use crate::app::App;
use crate::clock::{self, Milliseconds};
use crate::metrics::SignInOutcome;
use crate::secrets::{digest, hash_secret, new_secret};
use crate::store::{StoreError, User};

/// Wrong attempts under a name after which the next have to wait.
const FREE_ATTEMPTS: u32 = 5;
/// The longest that the next attempt has to wait.
const LONGEST_PAUSE: Milliseconds = 300_000;
/// After so long without an attempt they are counted from the start.
const FORGET_AFTER: Milliseconds = 3_600_000;

/// What came of an attempt.
pub(super) enum Attempt {
    /// It is this user.
    SignedIn(User),
    /// The name or the password is wrong.
    Wrong,
    /// It was not looked at: there were too many before it. The next may be made after so many seconds.
    TooEarly(u64),
}

/// The hash of a password that nobody knows, so that an unknown name takes as long as a known one.
static NOBODYS_HASH: LazyLock<String> =
    LazyLock::new(|| new_secret().and_then(|secret| hash_secret(&secret)).unwrap_or_default());

/// How long after the given attempt the next may be made: two seconds after the first that is not free, then twice as
/// long each time.
fn pause(attempts: i64) -> Milliseconds {
    let over = attempts.saturating_sub(i64::from(FREE_ATTEMPTS)).max(0);
    let over = u32::try_from(over).unwrap_or(u32::MAX);
    if over == 0 {
        return 0;
    }
    1000_i64
        .checked_shl(over)
        .filter(|pause| (1..LONGEST_PAUSE).contains(pause))
        .unwrap_or(LONGEST_PAUSE)
}

/// Checks a name and password. The count is kept by name, for all replicas, and whether or not there is such a user. It
/// counts before the password is looked at, so that many attempts at once are as many as one after the other.
///
/// # Errors
/// The store's.
pub(super) async fn attempt(app: &App, name: &str, password: SecretString) -> Result<Attempt, StoreError> {
    let name = name.trim().to_lowercase();
    let counted_as = digest(&name);
    let now = clock::now();
    let begun = app
        .store
        .begin_sign_in(&counted_as, now, now.saturating_sub(FORGET_AFTER), pause)
        .await?;
    if begun.is_none() {
        let next = app.store.next_sign_in(&counted_as).await?;
        app.metrics.sign_in(SignInOutcome::TooEarly);
        let seconds = u64::try_from(next.saturating_sub(now).max(1))
            .unwrap_or(1)
            .div_ceil(1000);
        return Ok(Attempt::TooEarly(seconds));
    }
    let user = app.store.user_named(&name).await?;
    let hash = match &user {
        Some(user) => user.password_hash.clone(),
        None => NOBODYS_HASH.clone(),
    };
    let right = verify(password, hash).await;
    match user {
        Some(user) if right => {
            app.store.forget_sign_ins(&counted_as).await?;
            app.metrics.sign_in(SignInOutcome::SignedIn);
            Ok(Attempt::SignedIn(user))
        }
        Some(_) | None => {
            app.metrics.sign_in(SignInOutcome::Wrong);
            Ok(Attempt::Wrong)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_attempts_wait_twice_as_long_each_time_but_never_longer_than_five_minutes() {
        let pauses: Vec<_> = (1..=8).map(pause).collect();
        assert_eq!(pauses, [0, 0, 0, 0, 0, 2_000, 4_000, 8_000]);
        for many in [14, 60, 70, 1_000_000, i64::MAX] {
            assert_eq!(pause(many), LONGEST_PAUSE, "{many}");
        }
    }
}
