//! From a user endpoint's configuration to what its engine, its worker and its provider are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;
use waypost_engine::{Acknowledge, Guarantee, Scaling, Settings};

use crate::config::{AckTiming, Delivery, EngineConfig, ScalingStrategy, UserEndpointConfig};

/// How long running tasks may take to end when the endpoint is stopped.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(30);

/// What the engine is told.
pub(super) fn engine(config: &UserEndpointConfig, epoch: u64, held_bytes: usize) -> Settings {
    let provider = config.engine.provider.blocks();
    let never = Duration::from_secs(100 * 365 * 24 * 3600);
    let (most, idle) = match config.engine.strategy {
        // Neither out nor in: what was started at first is all there ever is.
        ScalingStrategy::None => (provider.init_blocks.max(provider.min_blocks), never),
        ScalingStrategy::Simple | ScalingStrategy::HtexAutoScale => (provider.max_blocks, config.engine.max_idletime),
    };
    Settings {
        epoch,
        slots_per_block: slots(&config.engine),
        scaling: Scaling {
            init_blocks: provider.init_blocks,
            min_blocks: provider.min_blocks,
            max_blocks: most,
            parallelism: provider.parallelism,
            max_idletime: idle,
            ..Scaling::default()
        },
        max_retries_on_system_failure: config.engine.max_retries_on_system_failure,
        reconnect_grace: config.reconnect_grace,
        held_bytes: u64::try_from(held_bytes).unwrap_or(u64::MAX),
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
    }
}

/// Slots of a block: what was asked for, at most as many as cores and memory allow if those were limited.
pub(super) fn slots(config: &EngineConfig) -> u32 {
    let cores = std::thread::available_parallelism()
        .map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(u32::MAX)));
    let by_cores = whole(cores / config.cores_per_worker.max(f64::MIN_POSITIVE));
    let by_memory = match (config.mem_per_worker, memory_bytes()) {
        (Some(gigabytes), Some(bytes)) if gigabytes > 0.0 => whole(bytes / (gigabytes * 1e9)),
        _ => u32::MAX,
    };
    // Upstream counts cores only where max_workers_per_node leaves it open: a user who says 4 on 2 cores means 4.
    let asked = config.max_workers_per_node.unwrap_or(by_cores);
    asked.min(by_memory).max(1)
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

/// The worker's command line, but for what is different for each block.
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
    option("--slots", slots(config).to_string());
    option("--endpoint-id", user_endpoint.to_string());
    option(
        "--working-directory",
        working_directory(config, directory).display().to_string(),
    );
    if let Some(allowed) = &config.allowed_serializers {
        option("--allowed-serializers", allowed.join(","));
    }
    if let Some(gigabytes) = config.mem_per_worker {
        option("--memory-per-slot", format!("{:.0}", gigabytes * 1e9));
    }
    if config.run_in_sandbox {
        command.push("--sandbox".to_owned());
    }
    command
}

/// Where tasks run.
pub(super) fn working_directory(config: &EngineConfig, directory: &Path) -> PathBuf {
    directory.join(&config.working_dir)
}

#[cfg(test)]
mod tests {
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
    fn a_strategy_of_none_keeps_what_was_started_at_first() {
        let mut config = UserEndpointConfig::default();
        config.engine.strategy = ScalingStrategy::None;
        let settings = engine(&config, 1, 1);
        assert_eq!(settings.scaling.max_blocks, 1);
        assert!(settings.scaling.max_idletime > Duration::from_secs(1_000_000_000));
    }
}
