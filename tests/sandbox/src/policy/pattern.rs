//! Texts with wildcards and policy variables.

use super::evaluate::Context;

/// One element of a pattern whose variables are filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character that stands for itself; so do wildcards in a variable's value.
    Just(char),
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Exactly,
    IgnoringCase,
    /// With wildcards.
    Like,
}

/// Whether a text matches a pattern. A variable without a value, or with several, matches nothing.
pub(super) fn matches(pattern: &str, text: &str, manner: Manner, context: &Context) -> bool {
    let Some(tokens) = tokens(pattern, manner, context) else {
        return false;
    };
    match manner {
        Manner::Exactly | Manner::Like => run(&tokens, text),
        Manner::IgnoringCase => run(&tokens, &text.to_lowercase()),
    }
}

/// Whether an ARN matches a pattern: each of its six parts by itself, so that no wildcard reaches over
/// a colon but in the last one (IAM user guide, "Amazon Resource Name (ARN) condition operators").
pub(super) fn arn_matches(pattern: &str, arn: &str, context: &Context) -> bool {
    if pattern == "*" {
        return true;
    }
    let Some(tokens) = tokens(pattern, Manner::Like, context) else {
        return false;
    };
    let mut patterns = tokens.splitn(6, |token| *token == Token::Just(':'));
    let mut parts = arn.splitn(6, ':');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if run(pattern, part) => {}
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

/// The text of a variable, `ec2:SourceInstanceARN` in `${ec2:SourceInstanceARN}`; what is wrong with
/// it otherwise.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let mut rest = pattern;
    while let Some((_, tail)) = rest.split_once("${") {
        let Some((name, tail)) = tail.split_once('}') else {
            return Err(format!("`{pattern}` begins a variable and does not end it"));
        };
        let is_key = name.contains(':') && !name.contains([',', ' ', '\'']);
        if !is_key && !["*", "?", "$"].contains(&name) {
            return Err(format!("the variable `${{{name}}}` is not known"));
        }
        rest = tail;
    }
    Ok(())
}

fn tokens(pattern: &str, manner: Manner, context: &Context) -> Option<Vec<Token>> {
    let literal = |text: &str| -> Vec<Token> {
        match manner {
            Manner::Exactly | Manner::Like => text.chars().map(Token::Just).collect(),
            Manner::IgnoringCase => text.to_lowercase().chars().map(Token::Just).collect(),
        }
    };
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("${") {
            let (name, tail) = tail.split_once('}')?;
            let value = match name {
                "*" | "?" | "$" => name,
                key => context.one(key)?,
            };
            tokens.extend(literal(value));
            rest = tail;
            continue;
        }
        let letter;
        (letter, rest) = rest.split_at(next.len_utf8());
        match (letter, manner) {
            ("*", Manner::Like) => tokens.push(Token::Any),
            ("?", Manner::Like) => tokens.push(Token::One),
            _ => tokens.extend(literal(letter)),
        }
    }
    Some(tokens)
}

/// Goes back to the last `*` only: what an earlier one took can stay as it is.
fn run(pattern: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Token::Any) => {
                star = Some((at, read));
                at += 1;
            }
            Some(Token::One) => (at, read) = (at + 1, read + 1),
            Some(Token::Just(letter)) if *letter == text[read] => (at, read) = (at + 1, read + 1),
            Some(Token::Just(_)) | None => match &mut star {
                Some((after, taken)) => {
                    *taken += 1;
                    (at, read) = (*after + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pattern: &str, text: &str) -> bool {
        matches(pattern, text, Manner::Like, &Context::default())
    }

    #[test]
    fn wildcards_take_what_they_can() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abcb", false),
            ("a*b*c", "aXbXbXc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*-??????", "key-AbCdEf", true),
            ("*-??????", "key-AbCdE", false),
            ("ab", "AB", false),
        ] {
            assert_eq!(plain(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!matches("a*", "ab", Manner::Exactly, &Context::default()));
        assert!(matches("a*", "a*", Manner::Exactly, &Context::default()));
    }

    #[test]
    fn no_wildcard_of_an_arn_reaches_over_a_colon_but_the_last() {
        let group =
            "arn:aws:autoscaling:eu-west-1:1:autoScalingGroup:u-u-i-d:autoScalingGroupName/a";
        for (pattern, expected) in [
            ("*", true),
            (
                "arn:aws:autoscaling:eu-west-1:1:autoScalingGroup:*:autoScalingGroupName/a",
                true,
            ),
            ("arn:aws:autoscaling:*:*:*", true),
            ("arn:aws:autoscaling:*", false),
            (
                "arn:aws:autoscaling:eu-west-1:1:autoScalingGroup:*:autoScalingGroupName/b",
                false,
            ),
            (
                "arn:aws:autoscaling:eu-west-1:2:autoScalingGroup:*:autoScalingGroupName/a",
                false,
            ),
        ] {
            assert_eq!(
                arn_matches(pattern, group, &Context::default()),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_variable_stands_for_its_value_and_nothing_else() {
        let key = "ec2:SourceInstanceARN";
        let context = Context::from_iter([(key, "arn:aws:ec2:r:1:instance/i-*")]);
        let pattern = "${ec2:SourceInstanceARN}";
        let fits = |text: &str| matches(pattern, text, Manner::Like, &context);
        assert!(fits("arn:aws:ec2:r:1:instance/i-*"));
        assert!(!fits("arn:aws:ec2:r:1:instance/i-1"), "its star is a star");
        assert!(arn_matches(
            pattern,
            "arn:aws:ec2:r:1:instance/i-*",
            &context
        ));
        assert!(!plain(pattern, ""), "nothing to stand for");
        assert!(plain("a${*}", "a*") && !plain("a${*}", "ab"));
    }

    #[test]
    fn variables_are_checked() {
        assert_eq!(check("a${aws:username}b${*}"), Ok(()));
        let why = check("${aws:username, 'nobody'}").unwrap_err();
        assert!(why.contains("`${aws:username, 'nobody'}`"), "{why}");
        assert!(check("${aws:username").is_err());
    }
}
