use std::path::Path;

use endpoint_config::{EndpointDirectory, Sources, check_name};

use super::arguments::ConfigureOptions;
use super::error::{CliError, exit_code};
use super::{complain, print};

pub(super) fn configure(base: &Path, options: ConfigureOptions) -> Result<(), CliError> {
    if uuid::Uuid::try_parse(&options.name).is_ok() {
        return Err(CliError::said(
            format!(
                "'{}' looks like a UUID; an endpoint is configured by a name",
                options.name
            ),
            2,
        ));
    }
    check_name(&options.name)?;
    let directory = EndpointDirectory::find(base, &options.name)?;
    let settings = [
        ("display_name", options.display_name),
        ("email", options.contact_email),
        ("authentication_policy", options.auth_policy.map(|id| id.to_string())),
        ("subscription_id", options.subscription_id.map(|id| id.to_string())),
    ];
    directory.configure(&Sources {
        config: options.manager_config,
        template: options.template_config,
        schema: options.schema_config,
        environment: options.user_env_config,
        settings: settings
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect(),
    })?;
    // A source that is no good is said now, not at the first start.
    let remarks = match directory.read() {
        Ok((read, _)) => read.remarks,
        Err(error) => {
            let _ = std::fs::remove_dir_all(directory.path());
            return Err(CliError::said(error.to_string(), exit_code::ERROR));
        }
    };
    for remark in remarks {
        complain(&format!("Note: {remark}"));
    }
    print(&format!(
        "Created profile for endpoint named <{name}>\n\n\tConfiguration file: {config}\n\n\tUser endpoint configuration \
         template: {template}\n\tUser endpoint configuration schema: {schema}\n\tUser endpoint environment variables: \
         {environment}\n\nUse the `start` subcommand to run it:\n\n\t$ endpoint start {name}",
        name = directory.name(),
        config = directory.config_file().display(),
        template = directory.template_file(None).display(),
        schema = directory.schema_file(None).display(),
        environment = directory.environment_file().display(),
    ));
    Ok(())
}
