//! From a command to the configuration of a user endpoint.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use endpoint_config::schema::SchemaError;
use endpoint_config::template::{RESERVED_WORDS, TemplateError, TemplateInput, deprecated_names, render};
use endpoint_config::{
    ConfigError, EndpointDirectory, ManagerConfig, UserEndpointConfig, environment_file, schema, user_endpoint_config,
};
use minijinja::Value;
use nix::unistd::{Uid, User, getgrouplist};
use serde_json::Value as Json;

use crate::state::{Asked, SavedUserEndpoint};

/// A configuration that was made for a user endpoint.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) config: UserEndpointConfig,
    pub(crate) environment: BTreeMap<String, String>,
}

/// Why no configuration came of what was asked for: sentences for the submitter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// A file of the endpoint is missing or can not be read.
    #[error("{0}")]
    File(String),
    /// An option has a name that is taken.
    #[error("(ValueError) '{0}' is a reserved word and cannot be passed in via user config")]
    ReservedWord(&'static str),
    /// The schema is none, or does not take the options.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The template is wrong, or fails with these options.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// What was rendered is no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Renders the template for what a submitter asked for.
pub(crate) fn rendered(
    directory: &EndpointDirectory,
    manager: &ManagerConfig,
    name: &str,
    asked: &Asked,
) -> Result<Rendered, RenderError> {
    let options: Json = serde_json::from_str(&asked.user_options).unwrap_or(Json::Null);
    for word in RESERVED_WORDS {
        if options.get(word).is_some() {
            return Err(RenderError::ReservedWord(word));
        }
    }
    if let Some(text) = read(&directory.schema_file(Some(manager)))? {
        let schema = schema::read(&text)?;
        // No options are the empty set of options.
        let options = if options.is_null() {
            Json::Object(serde_json::Map::new())
        } else {
            options
        };
        schema::validate(&schema, &options)?;
    }
    let template_file = directory.template_file(Some(manager));
    let template = read(&template_file)?
        .ok_or_else(|| RenderError::File("the endpoint has no user endpoint template".to_owned()))?;
    for name in deprecated_names(&template) {
        tracing::warn!("Template access to `{name}` is deprecated; access via `_GC` instead.  (i.e., _GC.{name})");
    }
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    let text = render(&TemplateInput {
        template: &template,
        folder: template_file.parent(),
        user_options: &asked.user_options,
        user_runtime: &asked.user_runtime,
        parent_config: parent_config(manager),
        mapped_identity: mapped_identity(asked),
        environment: &variables,
    })?;
    let environment = environment(directory, name, asked);
    let config = read_config(&text, &environment, manager, directory.path())?;
    Ok(Rendered {
        text,
        config,
        environment,
    })
}

/// Renders anew for a user endpoint that ran before, since the endpoint's files may be others by now, and puts that into
/// what is saved of it. What can not be rendered is told in words, and what was rendered before goes on: there may be
/// tasks under way.
pub(crate) fn rendered_again(
    directory: &EndpointDirectory,
    manager: &ManagerConfig,
    saved: &mut SavedUserEndpoint,
) -> Result<(UserEndpointConfig, Option<String>), String> {
    match rendered(directory, manager, &saved.name, &saved.asked) {
        Ok(made) => {
            saved.config = made.text;
            saved.environment = made.environment;
            Ok((made.config, None))
        }
        Err(why) => {
            let config = read_config(&saved.config, &saved.environment, manager, directory.path())
                .map_err(|error| error.to_string())?;
            Ok((config, Some(why.to_string())))
        }
    }
}

/// Reads a rendered configuration, once it is made or restored. Files that it names are looked for in the endpoint's
/// `folder`.
fn read_config(
    text: &str,
    environment: &BTreeMap<String, String>,
    manager: &ManagerConfig,
    folder: &Path,
) -> Result<UserEndpointConfig, ConfigError> {
    let read = user_endpoint_config(text, Some(folder))?;
    for remark in &read.remarks {
        tracing::info!("user endpoint configuration: {remark}");
    }
    let mut config = read.config;
    config.environment.clone_from(environment);
    // What the endpoint allows holds for each of its user endpoints.
    if manager.base.allowed_functions.is_some() {
        config
            .base
            .allowed_functions
            .clone_from(&manager.base.allowed_functions);
    }
    Ok(config)
}

fn read(path: &Path) -> Result<Option<String>, RenderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a file of the endpoint can not be read");
            Err(RenderError::File(
                "a file of the endpoint can not be read; contact endpoint administrator".to_owned(),
            ))
        }
    }
}

fn environment(directory: &EndpointDirectory, name: &str, asked: &Asked) -> BTreeMap<String, String> {
    let mut environment = user_environment(directory);
    let runtime: Json = serde_json::from_str(&asked.user_runtime).unwrap_or(Json::Null);
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    };
    add("GLOBUS_COMPUTE_ENDPOINT_NAME", Some(name));
    add(
        "GC_USER_PYTHON_VERSION",
        runtime.pointer("/python/version").and_then(Json::as_str),
    );
    add(
        "GC_USER_SDK_VERSION",
        runtime.get("globus_compute_sdk_version").and_then(Json::as_str),
    );
    environment
}

/// The variables of `user_environment.yaml`. A file that can not be read is no reason not to run.
pub(crate) fn user_environment(directory: &EndpointDirectory) -> BTreeMap<String, String> {
    let path = directory.environment_file();
    let variables = match fs::read_to_string(&path) {
        Ok(text) => environment_file(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    };
    variables.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), error, "no environment variables were read; is it a valid YAML file?");
        BTreeMap::new()
    })
}

fn parent_config(manager: &ManagerConfig) -> Value {
    let base = &manager.base;
    let seconds = |time: std::time::Duration| {
        if time.subsec_nanos() == 0 {
            Value::from(time.as_secs())
        } else {
            Value::from(time.as_secs_f64())
        }
    };
    let ids = |list: &Option<Vec<uuid::Uuid>>| {
        list.as_ref()
            .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    minijinja::context! {
        display_name => base.display_name.clone(),
        allowed_functions => ids(&base.allowed_functions),
        authentication_policy => base.authentication_policy.map(|id| id.to_string()),
        subscription_id => base.subscription_id.map(|id| id.to_string()),
        amqp_port => base.amqp_port,
        heartbeat_period => seconds(base.heartbeat_period),
        environment => base.environment.clone(),
        local_compute_services => base.local_compute_services,
        debug => base.debug,
        admins => ids(&base.admins),
        high_assurance => base.high_assurance,
        public => manager.public,
        email => manager.email.clone(),
        mu_child_ep_grace_period_s => seconds(manager.grace),
        user_config_template_path => manager.user_config_template_path.as_ref().map(|path| path.display().to_string()),
        user_config_schema_path => manager.user_config_schema_path.as_ref().map(|path| path.display().to_string()),
    }
}

fn mapped_identity(asked: &Asked) -> Value {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let local = user.map(|user| {
        let groups: Vec<u32> = std::ffi::CString::new(user.name.clone())
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .unwrap_or_default()
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .collect();
        minijinja::context! {
            uname => user.name,
            uid => user.uid.as_raw(),
            gid => user.gid.as_raw(),
            gecos => user.gecos.to_string_lossy(),
            shell => user.shell.display().to_string(),
            dir => user.dir.display().to_string(),
            groups => groups,
        }
    });
    minijinja::context! {
        local => local,
        globus => minijinja::context! { id => asked.matched.to_string() },
    }
}

/// The name of the user that the process runs as.
pub(crate) fn local_user() -> String {
    User::from_uid(Uid::current())
        .ok()
        .flatten()
        .map_or_else(|| Uid::current().to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use endpoint_config::{ProviderConfig, Sources};
    use serde_json::json;
    use uuid::Uuid;
    use waypost_protocol::{AmqpCredentials, QueueInfo};

    use super::*;

    fn rendered(directory: &EndpointDirectory, manager: &ManagerConfig, asked: &Asked) -> Result<Rendered, String> {
        super::rendered(directory, manager, "uep.a.b", asked).map_err(|error| error.to_string())
    }

    fn configured() -> (tempfile::TempDir, EndpointDirectory) {
        let base = tempfile::tempdir().unwrap();
        let directory = EndpointDirectory::find(base.path(), "mine").unwrap();
        directory.configure(&Sources::default()).unwrap();
        (base, directory)
    }

    fn request(options: &Json, runtime: &Json) -> Asked {
        Asked {
            user_options: options.to_string(),
            user_runtime: runtime.to_string(),
            matched: Uuid::from_u128(7),
        }
    }

    #[test]
    fn the_files_of_configure_make_a_user_endpoint_with_and_without_options() {
        let (_base, directory) = configured();
        let manager = ManagerConfig::default();
        let plain = rendered(&directory, &manager, &request(&Json::Null, &Json::Null)).unwrap();
        assert_eq!(plain.config.engine.max_workers_per_node, Some(1));
        assert_eq!(plain.config.idle_heartbeats_soft, 10);
        let options = json!({"max_workers_per_node": 3, "worker_init": "echo \"a\"\necho b # c", "other": 1});
        let made = rendered(&directory, &manager, &request(&options, &Json::Null)).unwrap();
        assert_eq!(made.config.engine.max_workers_per_node, Some(3));
        let ProviderConfig::Local(provider) = made.config.engine.provider else {
            panic!("the default template has the local provider")
        };
        assert_eq!(provider.worker_init, "echo \"a\"\necho b # c");
    }

    /// The example of blocks of CPUs and of GPUs side by side, as an endpoint's files.
    fn example() -> (tempfile::TempDir, EndpointDirectory) {
        let (base, directory) = configured();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kubernetes");
        for (name, file) in [
            ("user_config_template.yaml.j2", directory.template_file(None)),
            ("user_config_schema.json", directory.schema_file(None)),
        ] {
            fs::copy(folder.join(name), file).unwrap();
        }
        (base, directory)
    }

    #[test]
    fn the_submitter_chooses_between_blocks_of_cpus_and_of_gpus() {
        let (_base, directory) = example();
        let manager = ManagerConfig::default();
        let engine = |options: Json| {
            let request = request(&options, &Json::Null);
            let engine = rendered(&directory, &manager, &request).unwrap().config.engine;
            let ProviderConfig::Kubernetes(provider) = engine.provider.clone() else {
                panic!("the example launches pods")
            };
            (engine, provider)
        };
        let (cpu, provider) = engine(json!({"image": "python:3.12", "cores": 4}));
        assert_eq!((cpu.label.as_deref(), cpu.max_workers_per_node), (Some("cpu"), Some(4)));
        assert_eq!((provider.max_cpu.text(), provider.init_mem.text()), ("4", "2Gi"));
        assert!(provider.accelerators.is_none() && provider.tolerations.is_empty());
        let (gpu, provider) =
            engine(json!({"image": "registry:5000/torch:2.7", "gpus": 2, "worker_init": "echo \"a\""}));
        assert_eq!((gpu.label.as_deref(), gpu.max_workers_per_node), (Some("gpu"), Some(2)));
        assert_eq!(gpu.available_accelerators, ["0", "1"]);
        assert_eq!(provider.image, "registry:5000/torch:2.7");
        assert_eq!(provider.worker_init, "echo \"a\"");
        assert_eq!(provider.tolerations.len(), 1);
    }

    #[test]
    fn options_out_of_range_are_refused_with_what_may_be_asked_for() {
        let (_base, directory) = example();
        let manager = ManagerConfig::default();
        for (options, named) in [
            (json!({}), "\"image\" is a required property"),
            (
                json!({"image": "python"}),
                "with a tag or a digest, such as python:3.12",
            ),
            (json!({"image": "registry:5000/python"}), "with a tag or a digest"),
            (json!({"image": "a:1", "cores": 17}), "cores of a pod, 1 to 16"),
            (
                json!({"image": "a:1", "memory_gib": 0}),
                "memory of a pod in GiB, 1 to 64",
            ),
            (json!({"image": "a:1", "gpus": 9}), "GPUs of a pod, 0 to 4"),
            (json!({"image": "a:1", "host_network": true}), "host_network"),
        ] {
            let error = rendered(&directory, &manager, &request(&options, &Json::Null)).unwrap_err();
            assert!(error.contains(named), "{options}: {error}");
        }
    }

    #[test]
    fn options_that_do_not_meet_the_schema_are_refused_in_words() {
        let (_base, directory) = configured();
        let manager = ManagerConfig::default();
        let bad = request(&json!({"max_workers_per_node": "many"}), &Json::Null);
        let error = rendered(&directory, &manager, &bad).unwrap_err();
        assert!(
            error.contains("ValidationError") && error.contains("integer"),
            "{error}"
        );
        let reserved = request(&json!({"_GC": {}}), &Json::Null);
        assert!(
            rendered(&directory, &manager, &reserved)
                .unwrap_err()
                .contains("'_GC' is a reserved word")
        );
    }

    #[test]
    fn workers_are_told_what_the_submitter_runs_unless_the_endpoint_says_otherwise() {
        let (_base, directory) = configured();
        fs::write(directory.environment_file(), "GC_USER_SDK_VERSION: 3.0\nSITE: x\n").unwrap();
        let runtime = json!({"globus_compute_sdk_version": "4.19.0", "python": {"version": "3.12.1"}});
        let made = rendered(&directory, &ManagerConfig::default(), &request(&Json::Null, &runtime)).unwrap();
        let variable = |name: &str| made.config.environment.get(name).map(String::as_str);
        assert_eq!(variable("GC_USER_PYTHON_VERSION"), Some("3.12.1"));
        assert_eq!(variable("GC_USER_SDK_VERSION"), Some("3.0"));
        assert_eq!(variable("SITE"), Some("x"));
        assert_eq!(variable("GLOBUS_COMPUTE_ENDPOINT_NAME"), Some("uep.a.b"));
    }

    #[test]
    fn what_the_endpoint_allows_holds_whatever_the_template_says() {
        let (_base, directory) = configured();
        let other = Uuid::from_u128(1);
        fs::write(
            directory.template_file(None),
            format!("allowed_functions: [{other}]\nengine: {{}}\n"),
        )
        .unwrap();
        let mut manager = ManagerConfig::default();
        let request = request(&Json::Null, &Json::Null);
        let made = rendered(&directory, &manager, &request).unwrap();
        assert_eq!(made.config.base.allowed_functions, Some(vec![other]));
        manager.base.allowed_functions = Some(vec![Uuid::from_u128(2)]);
        let made = rendered(&directory, &manager, &request).unwrap();
        assert_eq!(made.config.base.allowed_functions, manager.base.allowed_functions);
    }

    #[test]
    fn templates_find_the_endpoint_the_submitter_and_the_local_user() {
        let (_base, directory) = configured();
        fs::write(
            directory.template_file(None),
            "display_name: \"{{ _GC.parent_config.display_name }} {{ _GC.parent_config.heartbeat_period }} \
             {{ _GC.mapped_identity.globus.id }} {{ _GC.mapped_identity.local.uid }}\"\nengine: {}\n",
        )
        .unwrap();
        let mut manager = ManagerConfig::default();
        manager.base.display_name = Some("Mine".to_owned());
        let made = rendered(&directory, &manager, &request(&Json::Null, &Json::Null)).unwrap();
        assert_eq!(
            made.config.base.display_name,
            Some(format!("Mine 30 {} {}", Uuid::from_u128(7), Uid::current()))
        );
    }

    fn saved(asked: Asked) -> SavedUserEndpoint {
        let queue = QueueInfo {
            connection_url: "amqp://h/".to_owned(),
            queue: "q".to_owned(),
            exchange: None,
            queue_publish_kwargs: None,
        };
        SavedUserEndpoint {
            name: "uep.a.b".to_owned(),
            asked,
            config: "display_name: before\nengine: {}\n".to_owned(),
            environment: BTreeMap::new(),
            credentials: AmqpCredentials {
                endpoint_id: Uuid::nil(),
                task_queue_info: queue.clone(),
                result_queue_info: queue.clone(),
                heartbeat_queue_info: queue,
            },
            identity: Uuid::nil(),
            username: "me".to_owned(),
        }
    }

    #[test]
    fn a_user_endpoint_that_comes_back_is_as_the_template_is_now() {
        let (_base, directory) = configured();
        let manager = ManagerConfig::default();
        let mut saved = saved(request(&json!({"max_workers_per_node": 3}), &Json::Null));
        let (config, doubt) = rendered_again(&directory, &manager, &mut saved).unwrap();
        assert_eq!((config.engine.max_workers_per_node, doubt), (Some(3), None));
        let template = "display_name: now\nengine: {max_workers_per_node: {{ max_workers_per_node + 1 }}}\n";
        fs::write(directory.template_file(None), template).unwrap();
        let (config, _) = rendered_again(&directory, &manager, &mut saved).unwrap();
        assert_eq!(config.engine.max_workers_per_node, Some(4));
        assert!(saved.config.contains("display_name: now"), "{}", saved.config);
    }

    #[test]
    fn a_template_that_can_not_be_rendered_any_more_ends_nothing_that_ran() {
        let (_base, directory) = configured();
        fs::write(directory.template_file(None), "engine: {{ nothing_of_the_kind }}\n").unwrap();
        let mut saved = saved(request(&Json::Null, &Json::Null));
        let (config, doubt) = rendered_again(&directory, &ManagerConfig::default(), &mut saved).unwrap();
        assert_eq!(config.base.display_name.as_deref(), Some("before"));
        assert!(doubt.unwrap().contains("nothing_of_the_kind"));
    }
}
