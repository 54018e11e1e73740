//! Tables in columns, without lines, as docker and podman print them.

use crate::output;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Blanks between two columns.
const GAP: usize = 3;
/// A column that gives way to a narrow terminal keeps at least this.
const NARROWEST: usize = 8;

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Notable,
    /// Broken.
    Bad,
    /// Beside the point.
    Dim,
}

/// A cell.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// In this colour.
    pub fn coloured(text: impl Into<String>, colour: Option<Colour>) -> Self {
        // A line break or an escape in a name or command must not tear the table, or the terminal.
        let text = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { text, colour }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::coloured(text, None)
    }
}

/// How a column behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
    /// Text that gives way when the terminal is narrow.
    Elastic(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Left(title) | Self::Right(title) | Self::Elastic(title) => title,
        }
    }
}

/// A table.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With these columns.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more row, of as many cells as there are columns.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// As it fits standard output.
    pub fn fitted(&self, truncate: bool) -> String {
        self.render(if truncate { output::width() } else { None }, output::has_colours())
    }

    /// In lines of at most `width` characters, as far as elastic columns can help it.
    pub fn render(&self, width: Option<usize>, colours: bool) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.title().width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        if let Some(width) = width {
            self.squeeze(&mut widths, width);
        }
        let mut text = String::new();
        let header: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title())).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            self.render_row(row, &widths, colours, &mut text);
        }
        text
    }

    fn squeeze(&self, widths: &mut [usize], available: usize) {
        loop {
            let needed = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            let widest = (0..widths.len())
                .filter(|index| {
                    matches!(self.columns[*index], Column::Elastic(_)) && widths[*index] > NARROWEST
                })
                .max_by_key(|index| widths[*index]);
            match widest {
                Some(index) if needed > available => widths[index] -= 1,
                _ => return,
            }
        }
    }

    fn render_row(&self, row: &[Cell], widths: &[usize], colours: bool, text: &mut String) {
        let start = text.len();
        for (index, ((cell, width), column)) in row.iter().zip(widths).zip(&self.columns).enumerate() {
            if index > 0 {
                text.push_str(&" ".repeat(GAP));
            }
            let shown = shorten(&cell.text, *width);
            let padding = " ".repeat(width.saturating_sub(shown.width()));
            if matches!(column, Column::Right(_)) {
                text.push_str(&padding);
            }
            match cell.colour.filter(|_| colours) {
                Some(colour) => {
                    text.push_str(match colour {
                        Colour::Good => "\x1b[32m",
                        Colour::Notable => "\x1b[33m",
                        Colour::Bad => "\x1b[31m",
                        Colour::Dim => "\x1b[2m",
                    });
                    text.push_str(&shown);
                    text.push_str("\x1b[0m");
                }
                None => text.push_str(&shown),
            }
            if !matches!(column, Column::Right(_)) {
                text.push_str(&padding);
            }
        }
        text.truncate(start + text[start..].trim_end_matches(' ').len());
        text.push('\n');
    }
}

/// At most `width` characters wide, with `…` for what is missing.
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        shown.push(c);
    }
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[Column::Elastic("NAME"), Column::Right("SIZE"), Column::Left("STATE")]);
        table.row(["web".into(), "5".into(), Cell::coloured("running", Some(Colour::Good))]);
        table.row(["a-rather-long-name".into(), "1234".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        assert_eq!(
            table().render(None, false),
            "NAME                 SIZE   STATE\nweb                     5   running\na-rather-long-name   1234\n"
        );
    }

    #[test]
    fn elastic_column_gives_way_to_a_narrow_terminal() {
        let text = table().render(Some(30), false);
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
        assert!(text.contains("a-rather-lon…   1234"), "{text}");
        // Rather too wide than useless.
        assert!(table().render(Some(5), false).contains("a-rathe…"));
    }

    #[test]
    fn colours_do_not_change_the_width() {
        assert!(table().render(None, true).contains("  5   \x1b[32mrunning\x1b[0m\n"));
    }

    #[test]
    fn control_characters_and_wide_ones_do_no_harm() {
        let mut table = Table::new(&[Column::Left("A"), Column::Left("B")]);
        table.row(["日本".into(), "x\n\x1b[31my".into()]);
        assert_eq!(table.render(None, false), "A      B\n日本   x  [31my\n");
    }
}
