//! What must not stand in a launch template's user data: it is readable by every read-only role of
//! the account and by whoever reaches the instance metadata service.

/// Words that name secrets, as whole parts of a name.
const WORDS: &[&str] = &[
    "APIKEY",
    "AUTH",
    "AUTHORIZATION",
    "CREDENTIAL",
    "CREDENTIALS",
    "JWT",
    "PASS",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PAT",
    "PWD",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "WEBHOOK",
];
/// The same in two words.
const PAIRS: &[&str] = &[
    "ACCESS_KEY",
    "API_KEY",
    "PRIVATE_KEY",
    "SIGNING_KEY",
    "ENCRYPTION_KEY",
];
/// Ends of names that say where a secret is, what it is called, or how long it lasts.
const HARMLESS: &[&str] = &[
    "ARN",
    "DIR",
    "DOMAIN",
    "FILE",
    "HOST",
    "ID",
    "MODE",
    "NAME",
    "PARAMETER",
    "PATH",
    "TTL",
    "TYPE",
];
/// How tokens of well-known issuers begin.
const PREFIXES: &[&str] = &[
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "sk_live_",
    "rk_live_",
    "npm_",
    "eyJ",
];

/// Why a value of this name must not be written down, if it must not. The reason never holds the
/// value.
///
/// `name` is an environment variable or an `ECS_*` key, `value` its literal value.
pub fn literal(name: &str, value: &str) -> Option<&'static str> {
    if name == "ECS_ENGINE_AUTH_DATA" {
        return Some("holds registry credentials");
    }
    if value.contains("-----BEGIN") && value.contains("PRIVATE KEY") {
        return Some("holds a private key");
    }
    if value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(is_access_key_id)
    {
        return Some("holds an AWS access key");
    }
    if has_password_in_url(value) {
        return Some("holds a user and password in a URL");
    }
    if value
        .split(|c: char| !(c.is_ascii_alphanumeric() || "-_./+".contains(c)))
        .any(|word| word.len() >= 12 && PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        || value.contains("Bearer ")
        || value.contains("hooks.slack.com/")
    {
        return Some("holds what looks like a token");
    }
    if has_assignment(value) {
        return Some("gives something named like a secret a literal value");
    }
    (names_a_secret(name) && is_literal(value) && !is_of_the_ecs_agent(name))
        .then_some("is named like a secret and has a literal value")
}

/// As [`literal`], for the arguments of a command: `--name=value`, `--name value`, `NAME=value`.
pub fn literal_argument(before: Option<&str>, argument: &str) -> Option<&'static str> {
    let option = before.filter(|before| before.starts_with('-') && !before.contains('='));
    let name = option.map_or("", |option| option.trim_start_matches('-'));
    let value = if argument.starts_with('-') {
        ""
    } else {
        argument
    };
    literal(name, value).or_else(|| literal("", argument))
}

/// `web.authToken` and `DB_PASSWORD` do, `AUTH_MODE` and `PATH` do not.
fn names_a_secret(name: &str) -> bool {
    let parts = parts(name);
    let Some(last) = parts.last() else {
        return false;
    };
    let joined = parts.join("_");
    !HARMLESS.contains(&last.as_str())
        && (parts.iter().any(|part| WORDS.contains(&part.as_str()))
            || PAIRS.iter().any(|pair| joined.contains(pair)))
}

/// Upper-case words of a name in snake, kebab or camel case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && before.is_ascii_lowercase()) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut()
            && c.is_ascii_alphanumeric()
        {
            part.push(c.to_ascii_uppercase());
        }
        before = c;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Not empty, and not a reference that a shell or the agent resolves on the node.
fn is_literal(value: &str) -> bool {
    !(value.is_empty()
        || value.starts_with(['$', '`'])
        || matches!(value, "true" | "false" | "0" | "1"))
}

/// `NAME=value` anywhere in a text: a shell line, a query string, an option.
fn has_assignment(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices('=').any(|(at, _)| {
        let before = &text[..at];
        let name = &before[before.trim_end_matches(is_name).len()..];
        let quoted = text[at + 1..].trim_start_matches(['"', '\'']);
        let value = quoted.split([' ', '&', ';', '"', '\'']).next();
        names_a_secret(name) && value.is_some_and(is_literal)
    })
}

/// Its switches and paths are named after credentials, and hold none.
fn is_of_the_ecs_agent(name: &str) -> bool {
    name.starts_with("ECS_") || name.starts_with("CREDENTIALS_FETCHER")
}

fn is_access_key_id(word: &str) -> bool {
    word.len() == 20
        && (word.starts_with("AKIA") || word.starts_with("ASIA"))
        && word
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// `scheme://user:password@host`, also after a space or an equals sign.
fn has_password_in_url(value: &str) -> bool {
    value.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ', '"']).next().unwrap_or("");
        authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, p)| !p.is_empty()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_secrets_and_leaves_references_alone() {
        for (name, value) in [
            ("ECS_ENGINE_AUTH_DATA", "{}"),
            ("HTTP_PROXY", "http://me:pw@proxy:3128"),
            ("DB_PASSWORD", "hunter2"),
            ("DB_PWD", "hunter2"),
            ("dbPassword", "hunter2"),
            ("github_token", "x"),
            ("GH", "ghp_16C7e42F292c6912E7"),
            ("HEADER", "Authorization: Bearer abcdef"),
            ("X", "AKIAIOSFODNN7EXAMPLE"),
            ("X", "-----BEGIN RSA PRIVATE KEY-----"),
            ("SITE", "https://h/?user=a&token=abc"),
            ("URL", "https://hooks.slack.com/services/T0/B0/x"),
            ("", "export AWS_SECRET_ACCESS_KEY=wJalr; run"),
            ("", "DB_PASSWORD=\"hunter2\""),
        ] {
            assert!(literal(name, value).is_some(), "{name}={value}");
        }
        for (name, value) in [
            ("HTTP_PROXY", "http://proxy:3128"),
            ("DB_PASSWORD", ""),
            ("DB_PASSWORD", "$SECRET"),
            ("DB_PASSWORD_FILE", "/run/secrets/db"),
            (
                "SECRET_ARN",
                "arn:aws:secretsmanager:eu-central-1:1:secret:db",
            ),
            ("TOKEN_TTL", "60"),
            ("PATH", "/usr/bin"),
            ("COMPASS", "north"),
            ("ECS_ENABLE_TASK_IAM_ROLE", "true"),
            ("URL", "http://host/path:a@b"),
            ("", "--follow --max-size=10m"),
            (
                "",
                "TOKEN=`curl -X PUT http://169.254.169.254/latest/api/token`",
            ),
            (
                "",
                "TOKEN=\"$(curl -X PUT http://169.254.169.254/latest/api/token)\"",
            ),
            ("", "TOKEN=''"),
        ] {
            assert_eq!(literal(name, value), None, "{name}={value}");
        }
    }

    #[test]
    fn finds_secrets_in_arguments() {
        for (before, argument) in [
            (None, "--password=hunter2"),
            (Some("--token"), "abcd"),
            (Some("-v"), "--api-key=zzz"),
            (Some("-c"), "export TOKEN=abc; run"),
        ] {
            assert!(
                literal_argument(before, argument).is_some(),
                "{before:?} {argument}"
            );
        }
        for (before, argument) in [
            (None, "--password-file=/run/p"),
            (Some("--token"), "--next"),
            (Some("--token"), "$TOKEN"),
            (Some("--level"), "debug"),
        ] {
            assert_eq!(
                literal_argument(before, argument),
                None,
                "{before:?} {argument}"
            );
        }
    }
}
