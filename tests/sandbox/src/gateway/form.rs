//! Reading awsQuery forms into typed requests: `Tags.member.1.Key=a` becomes `tags[0].key`.
//! Numbers and booleans are parsed where the type asks for them. An empty list is sent as `Tags=`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::StringDeserializer,
};

/// Reads a request; `Action` and `Version` are no part of it.
///
/// # Errors
/// Names the parameter that is unknown or wrong.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, FormError> {
    let mut root = Node::Branch(BTreeMap::new());
    for (key, value) in form_urlencoded::parse(body) {
        if key != "Action" && key != "Version" {
            let path = key.split('.').filter(|part| *part != "member");
            root.put(path, value.into_owned());
        }
    }
    T::deserialize(root)
}

/// The value of one plain parameter.
pub(super) fn parameter(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// All values of parameters such as `ResourceId.1`, `ResourceId.2`, in order.
pub(super) fn list(body: &[u8], name: &str) -> Vec<String> {
    form_urlencoded::parse(body)
        .filter(|(key, _)| {
            key.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|index| index.parse::<u32>().is_ok())
        })
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// What is wrong with a form.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct FormError(String);

impl de::Error for FormError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[derive(Debug)]
enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

impl Node {
    fn put<'a>(&mut self, mut path: impl Iterator<Item = &'a str>, value: String) {
        let Some(part) = path.next() else {
            *self = Self::Leaf(value);
            return;
        };
        if let Self::Leaf(_) = self {
            *self = Self::Branch(BTreeMap::new());
        }
        if let Self::Branch(children) = self {
            // Lists are in the order of their numbers: 2 before 10.
            let key = match part.parse::<u32>() {
                Ok(number) => format!("{number:010}"),
                Err(_) => part.to_owned(),
            };
            let child = children.entry(key);
            child
                .or_insert_with(|| Self::Branch(BTreeMap::new()))
                .put(path, value);
        }
    }

    fn text(self) -> Result<String, FormError> {
        match self {
            Self::Leaf(text) => Ok(text),
            Self::Branch(_) => Err(de::Error::custom("expected a plain value")),
        }
    }

    fn parse<T: FromStr>(self, what: &str) -> Result<T, FormError> {
        let text = self.text()?;
        text.parse()
            .map_err(|_| de::Error::custom(format!("'{text}' is not {what}")))
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
            visitor.$visit(self.parse($what)?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = FormError;

    parsed! {
        deserialize_bool visit_bool "true or false",
        deserialize_i32 visit_i32 "a number",
        deserialize_i64 visit_i64 "a number",
        deserialize_u32 visit_u32 "a number, or out of range",
        deserialize_u64 visit_u64 "a number, or out of range",
        deserialize_f64 visit_f64 "a number",
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self {
            Self::Leaf(text) => visitor.visit_string(text),
            Self::Branch(children) => visitor.visit_map(Children::new(children)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self {
            Self::Leaf(text) if text.is_empty() => {
                visitor.visit_seq(Children::new(BTreeMap::new()))
            }
            Self::Leaf(text) => Err(de::Error::custom(format!("expected a list, not '{text}'"))),
            Self::Branch(children) => visitor.visit_seq(Children::new(children)),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Children {
    rest: std::collections::btree_map::IntoIter<String, Node>,
    value: Option<Node>,
}

impl Children {
    fn new(children: BTreeMap<String, Node>) -> Self {
        Self {
            rest: children.into_iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Children {
    type Error = FormError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FormError> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let key: StringDeserializer<FormError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, FormError> {
        let value = self.value.take();
        seed.deserialize(value.ok_or_else(|| de::Error::custom("a key without a value"))?)
    }
}

impl<'de> SeqAccess<'de> for Children {
    type Error = FormError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FormError> {
        let next = self.rest.next();
        next.map(|(_, node)| seed.deserialize(node)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
    struct Request {
        name: String,
        size: Option<u32>,
        force: Option<bool>,
        tags: Vec<Tag>,
        nested: Option<Tag>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
    struct Tag {
        key: String,
    }

    fn tag(key: &str) -> Tag {
        Tag { key: key.into() }
    }

    #[test]
    fn reads_lists_numbers_and_nesting() {
        let form = "Action=X&Version=1&Name=a+b&Size=3&Force=true&Nested.Key=n\
                    &Tags.member.2.Key=b&Tags.member.10.Key=c&Tags.member.1.Key=a";
        let request: Request = read(form.as_bytes()).unwrap();
        assert_eq!(
            request,
            Request {
                name: "a b".into(),
                size: Some(3),
                force: Some(true),
                tags: vec![tag("a"), tag("b"), tag("c")],
                nested: Some(tag("n")),
            }
        );
        assert_eq!(read::<Request>(b"Tags=").unwrap().tags, []);
    }

    #[test]
    fn names_what_is_wrong() {
        let message = |form: &str| read::<Request>(form.as_bytes()).unwrap_err().to_string();
        assert!(message("Size=-1").contains("'-1' is not a number"));
        assert!(message("Colour=red").contains("Colour"));
        assert!(message("Tags=a").contains("expected a list"));
    }

    #[test]
    fn reads_plain_lists() {
        let body = b"ResourceId.1=i-1&ResourceId.2=i-2&ResourceIdX.1=no";
        assert_eq!(list(body, "ResourceId"), ["i-1", "i-2"]);
        assert_eq!(parameter(b"A=1", "A").as_deref(), Some("1"));
    }
}
