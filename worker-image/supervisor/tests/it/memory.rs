//! The executor that takes too much memory is ended before the kernel ends them all.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use uuid::Uuid;
use waypost_link::Cause;

use crate::agent::{Agent, WorkerProcess};
use crate::tasks::{pack, returned};

/// A memory control group of this test's own, version 1 or 2.
struct Group(PathBuf);

impl Group {
    /// `None` where this user can make none.
    fn make(limit: u64) -> Option<Self> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = membership.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            match rest.split_once(':')? {
                ("memory", path) => Some((
                    Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')),
                    true,
                )),
                _ => None,
            }
        });
        let unified = || {
            let path = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
            Some((Path::new("/sys/fs/cgroup").join(path), false))
        };
        let (parent, first) = own.or_else(unified)?;
        let folder = parent.join(format!("waypost-test-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        let file = if first { "memory.limit_in_bytes" } else { "memory.max" };
        std::fs::write(group.0.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    /// The command, begun in this group.
    fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("/bin/sh");
        wrapped
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.0.join("cgroup.procs"));
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can go once its last process was reaped.
        for _ in 0..500 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// A worker that may have this much: by a control group where one can be made, by its option otherwise.
fn start_limited(agent: &Agent, limit: u64) -> (WorkerProcess, Option<Group>) {
    let Some(group) = Group::make(limit) else {
        eprintln!("no control group can be made by this user: the limit is an option's");
        let limit = limit.to_string();
        return (agent.start(&["--slots", "2", "--memory-limit", &limit]), None);
    };
    let worker = agent.start_command(&mut group.wrap(&agent.command(&["--slots", "2"])));
    (worker, Some(group))
}

#[tokio::test]
async fn the_executor_furthest_over_its_share_is_ended_and_its_neighbour_goes_on() {
    let agent = Agent::unix();
    let limit = 700 << 20;
    let (worker, group) = start_limited(&agent, limit);
    let mut session = agent.welcome().await;
    let gate = agent.folder.path().join("gate");
    let buffers = pack(&[
        ("small", "wait_for", json!([gate])),
        ("large", "grow", json!([650, 60])),
    ]);
    let (small, large) = (Uuid::new_v4(), Uuid::new_v4());
    session.run(small, &buffers[0]).await;
    session.run(large, &buffers[1]).await;
    // By the supervisor or, if it took the last of it faster than that looks, by the kernel: it is told the same.
    let Cause::OutOfMemory { peak, limit: share } = session.failure_of(large).await.cause else {
        panic!("it ran out of memory")
    };
    assert!(peak > 400 << 20 && peak < 800 << 20, "{peak}");
    assert_eq!(share, (limit - (64 << 20)) / 2);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(returned(&session.result_of(small).await), "saw it");
    drop((worker, group));
}

#[tokio::test]
async fn memory_that_is_taken_slowly_is_noticed_before_the_kernel_does() {
    let agent = Agent::unix();
    let (worker, group) = start_limited(&agent, 300 << 20);
    let mut session = agent.welcome().await;
    let task = Uuid::new_v4();
    session.run(task, &pack(&[("large", "creep", json!([400]))])[0]).await;
    let failure = session.failure_of(task).await;
    assert!(
        matches!(failure.cause, Cause::OutOfMemory { .. }),
        "{:?}",
        failure.cause
    );
    if let Some(group) = &group {
        let kills = ["memory.oom_control", "memory.events"].iter().find_map(|file| {
            let text = std::fs::read_to_string(group.0.join(file)).ok()?;
            text.lines()
                .find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
        });
        assert_eq!(kills, Some(0), "the kernel was first");
    }
    drop((worker, group));
}

#[tokio::test]
async fn a_share_may_be_exceeded_while_there_is_room() {
    let agent = Agent::unix();
    let _worker = agent.start(&[
        "--slots",
        "2",
        "--memory-limit",
        "1500000000",
        "--memory-per-slot",
        "10000000",
    ]);
    let mut session = agent.welcome().await;
    let body = session.result(&pack(&[("large", "grow", json!([200, 0.5]))])[0]).await;
    assert_eq!(returned(&body), 200 << 20);
}
