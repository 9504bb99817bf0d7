use crate::Engine;
use crate::state::task::{State, Step};

impl Engine {
    /// Panics if the state contradicts itself. Cheap enough for every step of a simulation, not for production.
    pub fn assert_invariants(&self) {
        assert!(self.tasks.agree(), "an index of the tasks disagrees with the table");
        assert!(self.blocks.agree(), "an index of the blocks disagrees with the table");
        assert!(self.timers.agree(), "the timers' two orders disagree");
        for (id, task) in self.tasks.iter() {
            if let Some(block) = task.block() {
                let given = self.blocks.get(block).is_some_and(|block| block.given.contains(&id));
                assert!(given, "task {id} is owned by block {block}, which does not have it");
            }
            match &task.state {
                State::Waiting => {
                    let safe = task.delivery.is_some() || task.journalled;
                    assert!(safe, "task {id} waits, and neither the broker nor the journal has it");
                    let body = task.message.as_ref().is_some_and(|message| message.body.is_some());
                    assert!(body, "task {id} waits without a body");
                }
                State::Done(done) => {
                    if let Step::Published(publish) = done.step {
                        assert_eq!(
                            self.publishes.get(&publish),
                            Some(&id),
                            "the publish of task {id} is not on record"
                        );
                    }
                }
                State::Held | State::Reserved { .. } | State::Given(_) => {}
            }
            assert!(
                !self.starts.contains_key(&id),
                "task {id} is in hand, and a start of it is still on record apart"
            );
        }
        for (id, block) in self.blocks.iter() {
            for task in &block.given {
                let owner = self.tasks.get(*task).and_then(|task| task.block());
                assert_eq!(owner, Some(id), "block {id} has task {task}, which is not its");
            }
            let unsettled = self
                .tasks
                .iter()
                .filter(|(_, task)| matches!(&task.state, State::Done(done) if done.block == Some(id)));
            assert_eq!(
                block.unsettled as usize,
                unsettled.count(),
                "block {id} miscounts its unsettled results"
            );
        }
        for (tag, open) in self.ledger.iter() {
            assert!(
                self.tasks.get(open.task).is_some(),
                "delivery {tag} is of task {}, which is not in hand",
                open.task
            );
        }
        assert!(
            self.publishes.len() <= self.tasks.done_count(),
            "more is being published than there are results"
        );
    }
}
