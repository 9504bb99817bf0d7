use std::time::Duration;

use crate::chance::Chance;

/// Tasks, and when they come.
#[derive(Debug)]
pub struct Load {
    /// What the table calls it.
    pub name: &'static str,
    /// What it is like.
    pub what: &'static str,
    /// When each comes and how long it takes, by the time at which it comes.
    pub tasks: Vec<(Duration, Duration)>,
}

const MINUTE: u64 = 60_000;

/// The loads that are compared.
#[must_use]
pub fn loads() -> Vec<Load> {
    vec![bursty(), steady(), sawtooth(), straggler()]
}

fn millis(chance: &mut Chance, from: u64, to: u64) -> Duration {
    Duration::from_millis(chance.range(from, to))
}

/// Bursts with pauses between them, some shorter and some longer than a pod may be idle.
fn bursty() -> Load {
    let mut chance = Chance::new(1);
    let mut tasks = Vec::new();
    let mut at = Duration::from_secs(10);
    for _ in 0..10 {
        for _ in 0..chance.range(20, 400) {
            tasks.push((at + millis(&mut chance, 0, 2_000), millis(&mut chance, 2_000, 20_000)));
        }
        at += millis(&mut chance, MINUTE / 2, 8 * MINUTE);
    }
    load(
        "bursty",
        "10 bursts of 20 to 400 tasks of 2 to 20 s, 0.5 to 8 minutes apart",
        tasks,
    )
}

/// Tasks at random, as many in each minute.
fn steady() -> Load {
    let mut chance = Chance::new(2);
    let mut tasks = Vec::new();
    let mut at = Duration::ZERO;
    while at < Duration::from_millis(45 * MINUTE) {
        at += millis(&mut chance, 0, 1_000);
        tasks.push((at, millis(&mut chance, 1_000, 19_000)));
    }
    load("steady", "2 tasks a second of 1 to 19 s for 45 minutes", tasks)
}

/// More and more tasks, and then none, again and again.
fn sawtooth() -> Load {
    let mut chance = Chance::new(3);
    let mut tasks = Vec::new();
    for tooth in 0..9_u64 {
        for second in 0..240_u64 {
            for _ in 0..chance.range(0, second / 30) {
                let at = Duration::from_secs(tooth * 300 + second) + millis(&mut chance, 0, 999);
                tasks.push((at, millis(&mut chance, 1_000, 19_000)));
            }
        }
    }
    load(
        "sawtooth",
        "from none to 8 tasks a second of 1 to 19 s within 4 minutes, then none for 1, 9 times",
        tasks,
    )
}

/// A burst, of which one task takes half an hour.
fn straggler() -> Load {
    let mut chance = Chance::new(4);
    let mut tasks = vec![(Duration::from_secs(10), Duration::from_millis(30 * MINUTE))];
    for _ in 0..300 {
        tasks.push((Duration::from_secs(10), millis(&mut chance, 2_000, 20_000)));
    }
    load(
        "straggler",
        "300 tasks of 2 to 20 s at once, and one of 30 minutes",
        tasks,
    )
}

fn load(name: &'static str, what: &'static str, mut tasks: Vec<(Duration, Duration)>) -> Load {
    tasks.sort_unstable();
    Load { name, what, tasks }
}
