use std::path::Path;

use endpoint_config::EndpointDirectory;

use super::error::CliError;
use super::instance::{Holder, holder};
use super::print;
use super::status::is_stopped_in_pod;
use super::table::table;

pub(super) fn list(base: &Path) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = EndpointDirectory::list(base)
        .into_iter()
        // Folders of user endpoints are not endpoints that somebody configured.
        .filter(|directory| !directory.name().starts_with("uep."))
        .map(|directory| {
            let id = directory.endpoint_id().ok().flatten();
            let status = match (holder(&directory.pid_file()), id) {
                (Ok(Holder::Process(_)), _) if !is_stopped_in_pod(&directory) => "Running",
                (Ok(Holder::Process(_)), _) => "Stopped",
                (_, None) => "Initialized",
                (Ok(Holder::None), Some(_)) => "Stopped",
                (Err(_), Some(_)) => "Disconnected",
            };
            vec![
                id.map_or_else(|| "None".to_owned(), |id| id.to_string()),
                status.to_owned(),
                directory.name().to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        print("No endpoints configured!\n\n (Hint: endpoint configure)");
    } else {
        print(&table(&["Endpoint ID", "Status", "Endpoint Name"], &rows));
    }
    Ok(())
}
