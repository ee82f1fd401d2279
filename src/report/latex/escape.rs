//! Text that LaTeX prints literally.

/// Escapes text for LaTeX. Letters outside those that pdfLaTeX sets without further packages become a question mark in
/// brackets, so that a table always compiles.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let (mut opened, mut in_code) = (false, false);
    for (place, c) in text.char_indices() {
        match c {
            // Markdown's quotation of names and commands.
            '`' if in_code => {
                escaped.push('}');
                in_code = false;
            }
            '`' if text[place + 1..].contains('`') => {
                escaped += "\\texttt{";
                in_code = true;
            }
            '\\' => escaped += "\\textbackslash{}",
            '{' | '}' | '$' | '&' | '#' | '%' | '_' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '<' => escaped += "\\textless{}",
            '>' => escaped += "\\textgreater{}",
            '|' => escaped += "\\textbar{}",
            // Plain quotation marks would all close.
            '"' => {
                opened = !opened;
                escaped += if opened { "``" } else { "''" };
            }
            '²' => escaped += "\\textsuperscript{2}",
            '³' => escaped += "\\textsuperscript{3}",
            '±' => escaped += "$\\pm$",
            '×' => escaped += "$\\times$",
            'µ' | 'μ' => escaped += "$\\mu$",
            '°' => escaped += "$^\\circ$",
            '†' => escaped += "\\dag{}",
            '‡' => escaped += "\\ddag{}",
            '§' => escaped += "\\S{}",
            '…' => escaped += "\\dots{}",
            '–' => escaped += "--",
            '—' => escaped += "---",
            '’' => escaped.push('\''),
            '“' => escaped += "``",
            '”' => escaped += "''",
            c if c.is_ascii_graphic() || c == ' ' => escaped.push(c),
            c if c.is_whitespace() || c.is_control() => escaped.push(' '),
            // Accented letters of Western Europe.
            'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ÿ' if !matches!(c, 'Ð' | 'Þ' | 'ð' | 'þ') => {
                escaped.push(c)
            }
            _ => escaped += "[?]",
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn special_characters_are_printed_and_never_obeyed() {
        assert_eq!(escape("m_a & 50 % #1 $x$ {y}"), "m\\_a \\& 50 \\% \\#1 \\$x\\$ \\{y\\}");
        assert_eq!(
            escape("\\input{x}^~<|>"),
            "\\textbackslash{}input\\{x\\}\\textasciicircum{}\\textasciitilde{}\\textless{}\\textbar{}\\textgreater{}"
        );
        assert_eq!(escape("a \"b\" c"), "a ``b'' c");
        assert_eq!(escape("run `a_b --x` and `c` or `d"), "run \\texttt{a\\_b --x} and \\texttt{c} or `d");
        assert_eq!(escape("R² in µg, ±1\n中é"), "R\\textsuperscript{2} in $\\mu$g, $\\pm$1 [?]é");
    }
}
