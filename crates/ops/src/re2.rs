//! Patterns in RE2's syntax, brought to that of the `regex` crate: the classes \w, \d, \s and the boundary \b are ASCII,
//! \Q..\E quotes, and a class has no other classes or set operations in it.

/// The same pattern for `regex`.
pub(crate) fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    // Whether inside of [..], and whether its first element is still to come.
    let (mut class, mut first) = (false, false);
    while let Some(c) = chars.next() {
        let leads = std::mem::take(&mut first);
        match c {
            '\\' => match chars.next() {
                Some('Q') if !class => quote(&mut chars, &mut out),
                Some(e) => escape(e, class, &mut out),
                None => out.push('\\'),
            },
            '[' if !class => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                (class, first) = (true, true);
            }
            ']' if class && leads => out.push_str(r"\]"),
            ']' => {
                class = false;
                out.push(']');
            }
            '[' if chars.peek() == Some(&':') => posix(&mut chars, &mut out),
            '[' | '&' | '~' if class => out.extend(['\\', c]),
            '-' if class && (leads || chars.peek() == Some(&'-')) => out.push_str(r"\-"),
            c => out.push(c),
        }
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What is between \Q and \E, literally.
fn quote(chars: &mut Chars<'_>, out: &mut String) {
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            return;
        }
        out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

fn escape(e: char, class: bool, out: &mut String) {
    let (negated, set) = match e {
        'w' => (false, "0-9A-Za-z_"),
        'W' => (true, "0-9A-Za-z_"),
        'd' => (false, "0-9"),
        'D' => (true, "0-9"),
        's' => (false, r"\t\n\f\r "),
        'S' => (true, r"\t\n\f\r "),
        'b' if !class => return out.push_str(r"(?-u:\b)"),
        'B' if !class => return out.push_str(r"(?-u:\B)"),
        e => return out.extend(['\\', e]),
    };
    match (class, negated) {
        (true, false) => out.push_str(set),
        (_, true) => out.extend(["[^", set, "]"]),
        (false, false) => out.extend(["[", set, "]"]),
    }
}

/// A class such as [:alpha:] inside of a class, up to its end.
fn posix(chars: &mut Chars<'_>, out: &mut String) {
    out.push('[');
    let mut last = '[';
    for c in chars.by_ref() {
        out.push(c);
        if (last, c) == (':', ']') {
            return;
        }
        last = c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        regex::Regex::new(&format!(r"\A(?:{})\z", translate(pattern))).unwrap().is_match(text)
    }

    #[test]
    fn classes_are_ascii() {
        assert!(whole(r"\w+", "ab_9") && !whole(r"\w+", "\u{e9}") && whole(r"\W", "\u{e9}"));
        assert!(
            whole(r"[\w.]+", "a.b")
                && whole(r"[^\d]", "\u{663}")
                && whole(r"[\D]", "x")
                && whole(r"\s\S", " x")
        );
        assert!(whole(".", "\u{65e5}"));
    }

    #[test]
    fn brackets_are_those_of_re2() {
        assert!(
            whole("[]a]+", "]a") && whole("[[a]+", "[a") && whole("[a&&b]+", "&ab") && whole("[--/]+", "-./")
        );
        assert!(whole("[[:alpha:]]+", "abc") && !whole("[[:alpha:]]+", "a1") && whole("[^]]", "x"));
        assert!(whole(r"\Qa.b\E+", "a.bb") && !whole(r"\Qa.b\E", "axb") && whole(r"a\b.", "a-"));
    }
}
