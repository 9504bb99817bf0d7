//! The endpoint's directory, `config.yaml`, templates and schema, into plain typed values.
//!
//! Nothing here runs anything: reading ends in a value or in all problems at once.

mod endpoint;

pub use endpoint::{
    AckTiming, BaseConfig, Delivery, EngineConfig, LocalProviderConfig, ProcessConfig, ProviderConfig, ScalingStrategy,
    UserEndpointConfig,
};
