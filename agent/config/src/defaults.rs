//! The files that `endpoint configure` writes.

/// `config.yaml`.
pub(super) const CONFIG: &str = "display_name: null\n";

/// `user_config_template.yaml.j2`.
pub(super) const TEMPLATE: &str = r#"{#-
  The configuration of a user endpoint. It is rendered for each submitter and each set of options (the SDK's
  `user_endpoint_config`), and `user_config_schema.json` says which options there are.

  Strings of the submitter arrive quoted for YAML; `shell_escape` quotes them for a shell as well. What is known of
  the submitter and of this endpoint is under `_GC`: _GC.user_runtime, _GC.mapped_identity, _GC.parent_config, _GC.env.
-#}

# A user endpoint ends after so many heartbeats (30 s each) without work; the next task starts it again.
idle_heartbeats_soft: 10
idle_heartbeats_hard: 5760

endpoint_setup: {{ endpoint_setup|default() }}

engine:
  type: GlobusComputeEngine
  # Slots: how many tasks a block runs at once.
  max_workers_per_node: {{ max_workers_per_node|default(1) }}

  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 0
    max_blocks: 1
    # Shell commands that run before a block's worker starts, such as: source /path/to/venv/bin/activate
    worker_init: {{ worker_init|default() }}
"#;

/// `user_config_schema.json`.
pub(super) const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "endpoint_setup": { "type": "string" },
    "worker_init": { "type": "string" },
    "max_workers_per_node": { "type": "integer", "minimum": 1 }
  },
  "additionalProperties": true
}
"#;

/// `user_environment.yaml`.
pub(super) const ENVIRONMENT: &str = "\
# Environment variables for the workers of all user endpoints, beyond those of the endpoint itself. There is no nesting:
# each line is a variable and its value, and every value becomes text.
#
# HOME, USER and PWD can not be set here.
#
# Example:
#
#     PATH: /opt/bin:/usr/bin:/bin
#     SITE_SPECIFIC_VARIABLE: some value
";
