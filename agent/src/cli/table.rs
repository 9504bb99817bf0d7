/// A table as texttable draws it: each row has as many cells as `head`.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .chain([title.len()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let rule = |line: char| {
        let parts: Vec<String> = widths.iter().map(|width| line.to_string().repeat(width + 2)).collect();
        format!("+{}+", parts.join("+"))
    };
    let titles = head
        .iter()
        .zip(&widths)
        .map(|(cell, width)| format!(" {cell:^width$} "));
    let row = |cells: Vec<String>| format!("|{}|", cells.join("|"));
    let mut lines = vec![rule('-'), row(titles.collect()), rule('=')];
    for cells in rows {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell:<width$} "));
        lines.push(row(cells.collect()));
        lines.push(rule('-'));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_titles_are_centred() {
        let rows = [["None", "Initialized", "default"].map(str::to_owned).to_vec()];
        let text = table(&["Endpoint ID", "Status", "Endpoint Name"], &rows);
        assert_eq!(
            text,
            "+-------------+-------------+---------------+\n\
             | Endpoint ID |   Status    | Endpoint Name |\n\
             +=============+=============+===============+\n\
             | None        | Initialized | default       |\n\
             +-------------+-------------+---------------+"
        );
    }
}
