//! `ami` of a group: the id of an image, or a table that says where the newest one is found.

use std::{collections::BTreeMap, fmt};

use fleet_agent_config::Problem;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::shapes;

/// The family whose newest image is taken where the file says nothing.
const FAMILY: &str = "al2023";
/// A release of it is named by its image, which says its date and kernel (ECS guide, "Retrieving
/// ECS-optimized AMI metadata").
const RELEASE: (&str, &str) = ("al2023-ami-ecs-hvm-", "-x86_64");
/// Whose images are looked at where the file says nothing.
const OWNER: &str = "self";

/// Which image nodes are launched from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ami {
    /// The newest ECS-optimized one of Amazon Linux 2023.
    #[default]
    Optimized,
    /// One release of that, by the image's name.
    Release(String),
    /// Given by its id.
    Id(String),
    /// The newest that carries these tags.
    Tagged {
        /// Account id, or `self`.
        owner: String,
        /// At least one.
        tags: BTreeMap<String, String>,
    },
}

impl Ami {
    /// Whether it is one of Amazon's own, which do not carry fleet-agent.
    pub(super) fn is_amazons(&self) -> bool {
        matches!(self, Self::Optimized | Self::Release(_))
    }
}

/// An image's id, or a table that says where the newest one is found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Ami")]
pub(super) enum Wire {
    /// Its id.
    Id(String),
    /// By a family, or by tags. A newer one than the group has is shown by `plan` and not taken.
    Table(Table),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "AmiTable")]
pub(super) struct Table {
    /// "al2023", the ECS-optimized one of Amazon Linux 2023, or one release of it by the image's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    /// In the place of a family: tags that it carries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    /// With `tags`: whose it is, an account id or "self"; default: "self".
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// As a file says it that leaves nothing to a default.
impl From<&Ami> for Wire {
    fn from(ami: &Ami) -> Self {
        let family = |name: &str| Table {
            family: Some(name.to_owned()),
            ..Table::default()
        };
        match ami {
            Ami::Optimized => Self::Table(family(FAMILY)),
            Ami::Release(name) => Self::Table(family(name)),
            Ami::Id(id) => Self::Id(id.clone()),
            Ami::Tagged { owner, tags } => Self::Table(Table {
                family: None,
                tags: tags.clone(),
                owner: Some(owner.clone()),
            }),
        }
    }
}

/// By hand: of an untagged choice serde would say only that nothing fits.
impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Wire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AMI id or a table")
            }

            fn visit_str<E>(self, id: &str) -> Result<Wire, E> {
                Ok(Wire::Id(id.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Wire, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(table)).map(Wire::Table)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The image at `key`, and what is wrong with it.
pub(super) fn read(key: &str, wire: Option<Wire>, problems: &mut Vec<Problem>) -> Ami {
    let mut wrong = |field: &str, why: Option<String>| {
        problems.extend(why.map(|why| Problem::new(format!("{key}{field}"), why)));
    };
    let table = match wire {
        None => return Ami::Optimized,
        Some(Wire::Id(id)) => {
            let why = shapes::ec2_id("ami", &id).map(|why| {
                format!("{why}, nor a table such as {{ family = \"{FAMILY}\" }} or {{ tags = {{ role = \"node\" }} }}")
            });
            wrong("", why);
            return Ami::Id(id);
        }
        Some(Wire::Table(table)) => table,
    };
    match (table.family, table.tags.is_empty()) {
        (Some(_), false) => {
            let why = "names a `family` and `tags`: take one of them";
            wrong("", Some(why.to_owned()));
            Ami::Optimized
        }
        (None, true) => {
            let why = "names neither a `family` nor the `tags` of an image";
            wrong("", Some(why.to_owned()));
            Ami::Optimized
        }
        (Some(family), true) => {
            let why = table
                .owner
                .map(|_| "goes with `tags` alone: Amazon publishes the family");
            wrong(".owner", why.map(str::to_owned));
            wrong(".family", family_problem(&family));
            if family == FAMILY {
                Ami::Optimized
            } else {
                Ami::Release(family)
            }
        }
        (None, false) => {
            let owner = table.owner.unwrap_or_else(|| OWNER.to_owned());
            wrong(".owner", owner_problem(&owner));
            Ami::Tagged {
                owner,
                tags: table.tags,
            }
        }
    }
}

fn family_problem(family: &str) -> Option<String> {
    let (before, after) = RELEASE;
    let is_release = || {
        let release = family.strip_prefix(before)?.strip_suffix(after)?;
        let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (!release.is_empty() && release.bytes().all(is_part)).then_some(())
    };
    (family != FAMILY && is_release().is_none()).then(|| {
        format!(
            "`{family}` is neither \"{FAMILY}\" nor the name of one of its x86_64 images, such as {before}2023.0.20241115-kernel-6.1{after}"
        )
    })
}

fn owner_problem(owner: &str) -> Option<String> {
    (owner != OWNER && shapes::account(owner).is_some())
        .then(|| format!("`{owner}` is neither an account id of 12 digits nor \"{OWNER}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    #[derive(Debug, Deserialize)]
    struct File {
        ami: Option<Wire>,
    }

    fn of(text: &str) -> (Ami, String) {
        let file: File = toml::from_str(text).expect("a file");
        let mut problems = Vec::new();
        let ami = read("ami", file.ami, &mut problems);
        (ami, told(&problems))
    }

    #[test]
    fn an_id_a_family_a_release_and_tags_are_taken() {
        let release = "al2023-ami-ecs-hvm-2023.0.20241115-kernel-6.1-x86_64";
        let tagged = |owner: &str| Ami::Tagged {
            owner: owner.to_owned(),
            tags: [("role".to_owned(), "node".to_owned())].into(),
        };
        for (text, ami) in [
            ("", Ami::Optimized),
            ("ami = \"ami-12345678\"", Ami::Id("ami-12345678".to_owned())),
            ("ami = { family = \"al2023\" }", Ami::Optimized),
            (
                &format!("ami = {{ family = \"{release}\" }}"),
                Ami::Release(release.to_owned()),
            ),
            ("ami = { tags = { role = \"node\" } }", tagged("self")),
            (
                "ami = { tags = { role = \"node\" }, owner = \"123456789012\" }",
                tagged("123456789012"),
            ),
        ] {
            assert_eq!(of(text), (ami, String::new()), "{text}");
        }
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for (text, part) in [
            ("ami = \"al2023\"", "ami: `al2023` is not an id such as"),
            ("ami = {}", "ami: names neither"),
            (
                "ami = { family = \"al2023\", tags = { a = \"b\" } }",
                "ami: names a `family` and `tags`",
            ),
            (
                "ami = { family = \"al2023\", owner = \"self\" }",
                "ami.owner: goes with `tags` alone",
            ),
            ("ami = { family = \"al2\" }", "ami.family: `al2` is neither"),
            (
                "ami = { family = \"al2023-ami-ecs-hvm-2023.0.1-kernel-6.1-arm64\" }",
                "one of its x86_64 images",
            ),
            (
                "ami = { tags = { a = \"b\" }, owner = \"me\" }",
                "ami.owner: `me` is neither an account id of 12 digits nor \"self\"",
            ),
        ] {
            let (_, told) = of(text);
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
