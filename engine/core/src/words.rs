//! A stranger's words, fit to be printed: what a broker or a name server says ends up in errors and logs,
//! and must neither drive a terminal nor look like another line of a log.

use core::fmt;

/// Shows text with everything escaped that does not print: control characters, line ends, and what turns
/// the direction of writing. Quotes stay.
pub(crate) struct Words<'a>(pub(crate) &'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for letter in self.0.chars() {
            match letter {
                '"' | '\'' => f.write_char(letter)?,
                _ => write!(f, "{}", letter.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// Escape, NUL, line ends, tabs, C1 controls and the override of the direction of writing are escaped,
    /// and so is the sign of an escape; letters of all languages and quotes are not.
    #[test]
    fn h5_what_does_not_print_is_escaped() {
        let text = "\x1b[2J\0\r\n\t\u{9b}1m\u{202e}\\ it's \"größer\" 大";
        let shown = r#"\u{1b}[2J\0\r\n\t\u{9b}1m\u{202e}\\ it's "größer" 大"#;
        assert_eq!(Words(text).to_string(), shown);
    }
}
