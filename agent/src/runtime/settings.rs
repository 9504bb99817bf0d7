//! From a user endpoint's configuration to what its engine, its worker and its provider are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use endpoint_config::{
    self as config, AckTiming, Delivery, EngineConfig, ProviderConfig, ScalingStrategy, UserEndpointConfig,
};
use uuid::Uuid;
use waypost_engine::{Acknowledge, Bound, Budget, Guarantee, OnUnschedulable, Scaling, Settings};

/// How long running tasks may take to end when the endpoint is stopped.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(30);

/// What the engine is told. The error is a sentence.
pub(super) fn engine(config: &UserEndpointConfig, epoch: u64, held_bytes: u64) -> Result<Settings, String> {
    Ok(Settings {
        epoch,
        slots_per_block: slots(&config.engine),
        scaling: scaling(&config.engine)?,
        max_retries_on_system_failure: config.engine.max_retries_on_system_failure,
        reconnect_grace: config.reconnect_grace,
        held_bytes,
        acknowledge: match config.ack {
            AckTiming::OnResult => Acknowledge::AfterResult,
            AckTiming::OnAccept => Acknowledge::OnAccept,
        },
        guarantee: match config.delivery {
            Delivery::AtLeastOnce => Guarantee::AtLeastOnce,
            Delivery::AtMostOnce => Guarantee::AtMostOnce,
        },
        stop_grace: STOP_GRACE,
        ..Settings::default()
    })
}

fn scaling(config: &EngineConfig) -> Result<Scaling, String> {
    let numbers = config.provider.blocks();
    let mut scaling = Scaling {
        init_blocks: numbers.init_blocks,
        min_blocks: numbers.min_blocks,
        max_blocks: numbers.max_blocks,
        parallelism: numbers.parallelism,
        max_idletime: config.max_idletime,
        ..Scaling::default()
    };
    if let ProviderConfig::Kubernetes(provider) = &config.provider {
        let budget = Budget {
            max_blocks: numbers.max_blocks,
            max_cores: provider.max_cores,
            max_memory: provider.max_memory.map(bytes),
        };
        let (most, bound) = budget.blocks(provider.init_cpu.value(), bytes(provider.init_mem.value()));
        if most == 0 && numbers.max_blocks > 0 {
            return Err(format!(
                "{} allows less than one block requests ({} cores, {} of memory), so that no task could ever run",
                bound.as_str(),
                provider.init_cpu.text(),
                provider.init_mem.text()
            ));
        }
        scaling = Scaling {
            init_blocks: numbers.init_blocks.min(most),
            min_blocks: numbers.min_blocks.min(most),
            max_blocks: most,
            bound,
            min_idle_blocks: provider.min_idle_blocks,
            creation_timeout: provider.creation_timeout,
            registration_timeout: provider.registration_timeout,
            scheduling_timeout: provider.scheduling_timeout,
            on_unschedulable: match provider.on_unschedulable {
                config::OnUnschedulable::Fail => OnUnschedulable::Fail,
                config::OnUnschedulable::Wait => OnUnschedulable::Wait,
            },
            image_grace: provider.image_grace,
            // The worker's own grace, and the time that Kubernetes takes to end what has ended.
            drain_timeout: provider.termination_grace + Duration::from_secs(10),
            ..scaling
        };
    }
    match config.strategy {
        // Neither out nor in: what was started at first is all there ever is.
        ScalingStrategy::None => {
            let asked = numbers.init_blocks.max(numbers.min_blocks);
            if asked == 0 && numbers.max_blocks > 0 {
                return Err(
                    "strategy: none starts no block but those of init_blocks and min_blocks, which are 0, so that no \
                     task could ever run"
                        .to_owned(),
                );
            }
            if asked <= scaling.max_blocks {
                scaling.bound = Bound::Strategy;
            }
            scaling.max_blocks = asked.min(scaling.max_blocks);
            scaling.max_idletime = Duration::from_secs(100 * 365 * 24 * 3600);
        }
        ScalingStrategy::Simple | ScalingStrategy::HtexAutoScale => {}
    }
    Ok(scaling)
}

/// Slots of a block: what was asked for, at most as many as there are accelerators and as the memory of where it runs
/// allows. Where it runs is this machine or a pod, by its limits.
pub(super) fn slots(config: &EngineConfig) -> u32 {
    let (cores, memory) = match &config.provider {
        ProviderConfig::Local(_) => {
            let cores = std::thread::available_parallelism()
                .map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(u32::MAX)));
            (cores, memory_bytes())
        }
        ProviderConfig::Kubernetes(provider) => (provider.max_cpu.value(), Some(provider.max_mem.value())),
    };
    let by_cores = whole(cores / config.cores_per_worker.max(f64::MIN_POSITIVE));
    let by_memory = match (config.mem_per_worker, memory) {
        (Some(gigabytes), Some(bytes)) if gigabytes > 0.0 => whole(bytes / (gigabytes * 1e9)),
        _ => u32::MAX,
    };
    // Upstream counts cores only where max_workers_per_node leaves it open: a user who says 4 on 2 cores means 4.
    let asked = config.max_workers_per_node.unwrap_or(by_cores);
    // As many as there are accelerators at most, each of which may be named more than once to be shared.
    let by_accelerators = match config.available_accelerators.len() {
        0 => u32::MAX,
        count => u32::try_from(count).unwrap_or(u32::MAX),
    };
    asked.min(by_memory).min(by_accelerators).max(1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, as it should"
)]
fn bytes(number: f64) -> u64 {
    number as u64
}

/// The whole part of a count, within what a count may be.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is clamped to the range before"
)]
fn whole(number: f64) -> u32 {
    number.clamp(0.0, f64::from(u32::MAX)) as u32
}

fn memory_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// A local worker's command line, but for what is different for each block.
pub(super) fn worker_command(
    config: &EngineConfig,
    worker: &Path,
    address: &str,
    user_endpoint: Uuid,
    directory: &Path,
) -> Vec<String> {
    let mut command = vec![worker.display().to_string()];
    let mut option = |name: &str, value: String| command.extend([name.to_owned(), value]);
    option("--connect", address.to_owned());
    option(
        "--working-directory",
        working_directory(config, directory).display().to_string(),
    );
    command.extend(worker_options(config, user_endpoint));
    command
}

/// The options of a worker that do not depend on where it runs.
pub(super) fn worker_options(config: &EngineConfig, user_endpoint: Uuid) -> Vec<String> {
    let mut options = Vec::new();
    let mut option = |name: &str, value: String| options.extend([name.to_owned(), value]);
    option("--slots", slots(config).to_string());
    option("--endpoint-id", user_endpoint.to_string());
    if let Some(allowed) = &config.allowed_serializers {
        option("--allowed-serializers", allowed.join(","));
    }
    if let Some(gigabytes) = config.mem_per_worker {
        option("--memory-per-slot", format!("{:.0}", gigabytes * 1e9));
    }
    if !config.available_accelerators.is_empty() {
        // A name may be of several, with commas: the worker takes them apart at spaces, as Parsl's does.
        option("--accelerators", config.available_accelerators.join(" "));
    }
    if config.run_in_sandbox {
        options.push("--sandbox".to_owned());
    }
    options
}

/// The folder that must be there before blocks are launched: where tasks run, if that is on this machine.
pub(super) fn local_directory(config: &EngineConfig, directory: &Path) -> PathBuf {
    match config.provider {
        ProviderConfig::Local(_) => working_directory(config, directory),
        ProviderConfig::Kubernetes(_) => directory.to_owned(),
    }
}

/// Where tasks of local blocks run.
fn working_directory(config: &EngineConfig, directory: &Path) -> PathBuf {
    directory.join(&config.working_dir)
}

#[cfg(test)]
mod tests {
    use endpoint_config::{KubernetesProviderConfig, Quantity};

    use super::*;

    #[test]
    fn what_the_user_asks_for_is_what_a_block_gets() {
        let config = EngineConfig {
            max_workers_per_node: Some(64),
            ..EngineConfig::default()
        };
        assert_eq!(slots(&config), 64);
        let config = EngineConfig {
            max_workers_per_node: Some(64),
            mem_per_worker: Some(1e12),
            ..config
        };
        assert_eq!(
            slots(&config),
            1,
            "no machine has the memory for more, and one slot there must be"
        );
        let config = EngineConfig {
            cores_per_worker: 1e9,
            ..EngineConfig::default()
        };
        assert_eq!(slots(&config), 1);
    }

    #[test]
    fn each_slot_has_an_accelerator_and_the_worker_is_told_which() {
        let mut config = EngineConfig {
            max_workers_per_node: Some(4),
            available_accelerators: ["0,1", "2,3"].map(str::to_owned).into(),
            ..EngineConfig::default()
        };
        assert_eq!(slots(&config), 2);
        let options = |config: &EngineConfig| worker_options(config, Uuid::nil()).join("|");
        assert!(
            options(&config).contains("--slots|2|") && options(&config).contains("|--accelerators|0,1 2,3"),
            "{}",
            options(&config)
        );
        config.available_accelerators.clear();
        assert_eq!(slots(&config), 4);
        assert!(!options(&config).contains("--accelerators"));
    }

    #[test]
    fn a_strategy_of_none_keeps_what_was_started_at_first() {
        let mut config = UserEndpointConfig::default();
        config.engine.strategy = ScalingStrategy::None;
        let settings = engine(&config, 1, 1).unwrap();
        assert_eq!(settings.scaling.max_blocks, 1);
        assert!(settings.scaling.max_idletime > Duration::from_secs(1_000_000_000));
        assert_eq!(settings.scaling.bound.as_str(), "strategy: none");
    }

    #[test]
    fn a_strategy_of_none_that_could_never_run_a_task_is_refused_by_its_name() {
        let mut config = pods(KubernetesProviderConfig {
            init_blocks: 0,
            ..KubernetesProviderConfig::default()
        });
        assert!(engine(&config, 1, 1).is_ok());
        config.engine.strategy = ScalingStrategy::None;
        let refused = engine(&config, 1, 1).unwrap_err();
        assert!(refused.starts_with("strategy: none starts no block but"), "{refused}");
    }

    #[test]
    fn where_a_budget_allows_fewer_than_were_to_be_started_at_first_the_budget_is_named() {
        let mut config = pods(KubernetesProviderConfig {
            init_cpu: Quantity::parse("2").unwrap(),
            init_blocks: 5,
            max_cores: Some(7.0),
            ..KubernetesProviderConfig::default()
        });
        config.engine.strategy = ScalingStrategy::None;
        let scaling = engine(&config, 1, 1).unwrap().scaling;
        assert_eq!((scaling.max_blocks, scaling.bound.as_str()), (3, "max_cores"));
    }

    fn pods(provider: KubernetesProviderConfig) -> UserEndpointConfig {
        let mut config = UserEndpointConfig::default();
        config.engine.provider = ProviderConfig::Kubernetes(Box::new(provider));
        config
    }

    #[test]
    fn slots_of_a_pod_come_from_its_limits_and_not_from_this_machine() {
        let mut config = pods(KubernetesProviderConfig {
            max_cpu: Quantity::parse("6500m").unwrap(),
            max_mem: Quantity::parse("8G").unwrap(),
            ..KubernetesProviderConfig::default()
        });
        assert_eq!(slots(&config.engine), 6);
        config.engine.cores_per_worker = 0.5;
        assert_eq!(slots(&config.engine), 13);
        config.engine.mem_per_worker = Some(2.0);
        assert_eq!(slots(&config.engine), 4);
        config.engine.max_workers_per_node = Some(3);
        assert_eq!(slots(&config.engine), 3);
    }

    #[test]
    fn a_budget_smaller_than_one_block_is_refused_with_its_name() {
        let mut provider = KubernetesProviderConfig {
            init_cpu: Quantity::parse("2").unwrap(),
            max_cores: Some(7.0),
            ..KubernetesProviderConfig::default()
        };
        let settings = engine(&pods(provider.clone()), 1, 1).unwrap();
        assert_eq!(
            (settings.scaling.max_blocks, settings.scaling.bound.as_str()),
            (3, "max_cores")
        );
        provider.max_cores = Some(1.0);
        let refused = engine(&pods(provider), 1, 1).unwrap_err();
        assert!(
            refused.starts_with("max_cores allows less than one block requests (2 cores"),
            "{refused}"
        );
    }
}
