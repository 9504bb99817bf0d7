//! How many tasks the engine can take through their whole life in a second.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;
use waypost_engine::{
    BlockId, ChannelEpoch, Delivery, DeliveryTag, Engine, EntryId, Failure, FunctionId, Input, Output, PublishOutcome,
    Scaling, Settings, Slot, TaskId, TaskOutcome, Time, ToWorker, WorkerId,
};

const TASKS: u64 = 300_000;
const WORKERS: u64 = 8;
const SLOTS: u32 = 16;
/// What must be reached for each second of processor time on any machine; a usual one does several times as many.
const TASKS_PER_SECOND_MIN: f64 = 60_000.0;

/// Seconds for which this thread has had a processor: others on the machine do not count. Where Linux does not say it,
/// seconds since `start`.
fn processor_seconds(start: Instant) -> f64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = counted.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| start.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

/// What has been asked for and is answered in the next round, as a broker, workers and a journal would.
#[derive(Default)]
struct World {
    inputs: VecDeque<Input>,
    journalled: u64,
    acknowledged: u64,
}

impl World {
    fn answer(&mut self, output: Output) {
        match output {
            Output::Send {
                worker,
                message: ToWorker::Run { task, attempt, .. },
            } => {
                self.inputs.push_back(Input::TaskStarted {
                    worker,
                    task,
                    attempt,
                    slot: Slot(0),
                });
                let (outcome, body) = (TaskOutcome::Succeeded, Bytes::from_static(b"result"));
                self.inputs.push_back(Input::TaskFinished {
                    worker,
                    task,
                    attempt,
                    outcome,
                    body,
                });
                self.inputs.push_back(Input::WorkerCredit { worker, tasks: 1 });
            }
            Output::Publish { publish, .. } => {
                self.inputs.push_back(Input::PublishOutcome {
                    publish,
                    outcome: PublishOutcome::Confirmed,
                });
            }
            Output::Journal { entry, .. } => self.journalled = entry.0,
            Output::Ack { tag, multiple } => {
                self.acknowledged = if multiple {
                    tag.tag
                } else {
                    self.acknowledged.max(tag.tag)
                };
            }
            _ => {}
        }
    }
}

#[test]
fn a_core_takes_far_more_tasks_a_second_than_a_broker_delivers() {
    let compose = |_: TaskId, _: &Failure| Bytes::new();
    let scaling = Scaling {
        init_blocks: 0,
        max_blocks: 0,
        ..Scaling::default()
    };
    let mut engine = Engine::new(
        Settings {
            scaling,
            ..Settings::default()
        },
        1,
        Box::new(compose),
    );
    let mut world = World::default();
    let channel = ChannelEpoch(1);
    world.inputs.extend([
        Input::BlocksListed { blocks: vec![] },
        Input::ConsumerStarted { channel },
        Input::PublisherStarted,
    ]);
    for worker in 0..WORKERS {
        let block = BlockId {
            epoch: 1,
            number: u32::try_from(worker).unwrap(),
        };
        let worker = WorkerId(worker);
        world.inputs.push_back(Input::WorkerHello {
            worker,
            block,
            slots: SLOTS,
            held: vec![],
        });
        world.inputs.push_back(Input::WorkerCredit {
            worker,
            tasks: 2 * SLOTS,
        });
    }
    let body = Bytes::from_static(b"body");
    let (mut delivered, mut now, mut last_journalled) = (0, 0, 0);
    let start = Instant::now();
    let before = processor_seconds(start);
    while world.acknowledged < TASKS {
        // As many as the window holds, ids without any order.
        while delivered < TASKS && delivered < world.acknowledged + 1000 {
            delivered += 1;
            let id = u128::from(delivered).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            world.inputs.push_back(Input::Delivery(Delivery {
                tag: DeliveryTag {
                    channel,
                    tag: delivered,
                },
                task: TaskId(Uuid::from_u128(id)),
                function: FunctionId(Uuid::nil()),
                redelivered: false,
                delivery_count: None,
                resource_specification: None,
                result_serializers: None,
                body: body.clone(),
            }));
        }
        for _ in 0..world.inputs.len().min(256) {
            let Some(input) = world.inputs.pop_front() else { break };
            now += 1;
            engine.handle(Time::from_micros(now), input);
            loop {
                match engine.poll_output() {
                    Output::Deadline { .. } | Output::Idle => break,
                    output => world.answer(output),
                }
            }
        }
        if world.journalled > last_journalled {
            last_journalled = world.journalled;
            world.inputs.push_front(Input::Journalled {
                through: EntryId(last_journalled),
                written: true,
            });
        }
    }
    let seconds = processor_seconds(start) - before;
    let rate = TASKS as f64 / seconds;
    println!("{rate:.0} tasks/s");
    assert!(rate >= TASKS_PER_SECOND_MIN, "{rate:.0} tasks/s");
}
