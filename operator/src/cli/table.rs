//! Aligned columns, two spaces apart; nothing is drawn around them.

use super::out::{Paint, Tone};

/// Rows under a heading.
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

// === impl Table ===

impl Table {
    pub(super) fn new(heading: &[&'static str]) -> Table {
        Table { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every line without spaces at its end.
    pub(super) fn render(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.text.chars().count());
            cells.chain([self.heading[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        let heading: Vec<Cell> =
            self.heading.iter().map(|h| Cell { text: (*h).to_owned(), tone: Tone::Strong }).collect();
        let lines = std::iter::once(&heading).chain(&self.rows).map(|row| line(row, &widths, paint));
        lines.collect::<Vec<_>>().join("\n")
    }
}

// === impl Cell ===

impl Cell {
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Cell {
        Cell { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(Tone::Plain, text)
    }
}

fn line(row: &[Cell], widths: &[usize], paint: Paint) -> String {
    let last = row.iter().rposition(|c| !c.text.is_empty()).unwrap_or(0);
    let cells = row.iter().zip(widths).take(last + 1).enumerate().map(|(i, (cell, width))| {
        let pad = if i == last { 0 } else { width.saturating_sub(cell.text.chars().count()) };
        format!("{}{}", paint.tone(cell.tone, &cell.text), " ".repeat(pad))
    });
    cells.collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(vec!["shop_db".into(), Cell::new(Tone::Good, "healthy"), "".into()]);
        table.row(vec!["é".into(), "ill".into(), "x".into()]);
        let plain = table.render(Paint::NONE);
        assert_eq!(plain, "NAME     STATE    NOTE\nshop_db  healthy\né        ill      x");
        assert!(table.render(Paint::COLOURS).contains("\x1b[32mhealthy\x1b[0m"));
    }
}
