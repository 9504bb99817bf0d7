//! The endpoint's directory, `config.yaml`, templates and schema, into plain typed values.
//!
//! Nothing here runs anything: reading ends in a value or in all problems at once.

mod defaults;
mod directory;
mod endpoint;
mod engine;
mod kubernetes;
mod parse;
mod python;
mod quantity;
mod reader;
pub mod schema;
pub mod template;
#[cfg(test)]
mod tests;
pub mod yaml;

pub use directory::{DirectoryError, EndpointDirectory, Sources, base_directory, check_name};
pub use endpoint::{
    AckTiming, BaseConfig, BlockNumbers, Delivery, EngineConfig, LocalProviderConfig, ManagerConfig, ProcessConfig,
    ProviderConfig, ScalingStrategy, UserEndpointConfig,
};
pub use kubernetes::{
    Accelerators, ImagePullPolicy, KeptPods, KubernetesProviderConfig, OnUnschedulable, PersistentVolume,
    SecurityProfile,
};
pub use parse::{
    ConfigError, Configuration, Read, endpoint_config, environment_file, listen_address, user_endpoint_config,
};
pub use quantity::Quantity;
pub use reader::Problem;
