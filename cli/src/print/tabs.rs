//! Elastic tab stops, as Go's `text/tabwriter` lays them out with spaces.
//!
//! A cell ends with a tab; a column is a run of consecutive lines that have a cell there. What follows the last tab of a
//! line belongs to no column.

/// Lays out text. Columns are at least `least` wide and have `padding` spaces after their longest cell.
pub(crate) fn align(text: &str, least: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut layout = Layout { lines, least, padding, widths: Vec::new(), out: String::new() };
    layout.block(0, layout.lines.len());
    // The piece after the last newline is no line of its own.
    layout.out.pop();
    layout.out
}

struct Layout<'a> {
    lines: Vec<Vec<&'a str>>,
    least: usize,
    padding: usize,
    widths: Vec<usize>,
    out: String,
}

impl Layout<'_> {
    /// Whether a line has a tab-terminated cell in the current column, and how wide it is.
    fn cell(&self, line: usize) -> Option<usize> {
        let line = self.lines.get(line)?;
        let column = self.widths.len();
        (column + 1 < line.len()).then(|| line.get(column).map_or(0, |cell| cell.chars().count()))
    }

    fn block(&mut self, from: usize, to: usize) {
        let (mut done, mut line) = (from, from);
        while line < to {
            let Some(first) = self.cell(line) else {
                line += 1;
                continue;
            };
            self.write(done, line);
            let begin = line;
            let mut width = self.least.max(first + self.padding);
            while line < to
                && let Some(cell) = self.cell(line)
            {
                width = width.max(cell + self.padding);
                line += 1;
            }
            self.widths.push(width);
            self.block(begin, line);
            self.widths.pop();
            done = line;
        }
        self.write(done, to);
    }

    fn write(&mut self, from: usize, to: usize) {
        for line in self.lines.get(from..to).unwrap_or_default() {
            for (i, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if let Some(width) = self.widths.get(i) {
                    let used = cell.chars().count();
                    self.out.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
                }
            }
            self.out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_runs_of_lines_with_a_cell_there() {
        let table = "NAME\tAGE\nlong-name\t5m\n";
        assert_eq!(align(table, 6, 3), "NAME        AGE\nlong-name   5m\n");
        let sections = "Name:\tx\nLonger:\ty\nno tab\nA:\tb\n";
        assert_eq!(align(sections, 0, 2), "Name:    x\nLonger:  y\nno tab\nA:  b\n");
        assert_eq!(align("a\tb\tc\nlonger\n", 0, 2), "a  b  c\nlonger\n");
    }
}
