use std::path::Path;

use super::error::CliError;
use super::instance::{Holder, holder};
use super::print;
use crate::config::EndpointDirectory;

pub(super) fn list(base: &Path) -> Result<(), CliError> {
    let rows: Vec<[String; 3]> = EndpointDirectory::list(base)
        .into_iter()
        // Folders of user endpoints are not endpoints that somebody configured.
        .filter(|directory| !directory.name().starts_with("uep."))
        .map(|directory| {
            let id = directory.endpoint_id().ok().flatten();
            let status = match (holder(&directory.pid_file()), id) {
                (Ok(Holder::Process(_)), _) => "Running",
                (_, None) => "Initialized",
                (Ok(Holder::None), Some(_)) => "Stopped",
                (Err(_), Some(_)) => "Disconnected",
            };
            [
                id.map_or_else(|| "None".to_owned(), |id| id.to_string()),
                status.to_owned(),
                directory.name().to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        print("No endpoints configured!\n\n (Hint: endpoint configure)");
    } else {
        print(&table(["Endpoint ID", "Status", "Endpoint Name"], &rows));
    }
    Ok(())
}

/// A table as texttable draws it.
fn table(head: [&str; 3], rows: &[[String; 3]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([head[column].len()])
            .max()
            .unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let rule = |line: char| {
        let parts: Vec<String> = widths.iter().map(|width| line.to_string().repeat(width + 2)).collect();
        format!("+{}+", parts.join("+"))
    };
    let row = |cells: [&str; 3]| {
        let parts: Vec<String> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!(" {cell:<width$} "))
            .collect();
        format!("|{}|", parts.join("|"))
    };
    let mut lines = vec![rule('-'), row(head), rule('=')];
    for cells in rows {
        lines.push(row([&cells[0], &cells[1], &cells[2]]));
        lines.push(rule('-'));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["None".to_owned(), "Initialized".to_owned(), "default".to_owned()]];
        let text = table(["Endpoint ID", "Status", "Endpoint Name"], &rows);
        assert_eq!(
            text,
            "+-------------+-------------+---------------+\n\
             | Endpoint ID | Status      | Endpoint Name |\n\
             +=============+=============+===============+\n\
             | None        | Initialized | default       |\n\
             +-------------+-------------+---------------+"
        );
    }
}
