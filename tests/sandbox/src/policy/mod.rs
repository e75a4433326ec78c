//! IAM policies as a pure model: documents in, a decision out. No clock, no network, no account.
//!
//! # Guarantees
//! - An explicit deny wins over every allow, and what nothing allows is denied.
//! - Nothing in a document is skipped: an element, an operator or a variable that this model does not
//!   know makes the document unreadable, by name.
//!
//! # Not evaluated
//! Principals (this is for identity-based policies), NotAction, NotResource, permissions boundaries,
//! session policies, and conditions on numbers, dates and addresses.
//!
//! Source: IAM user guide, "Policy evaluation logic" and "IAM JSON policy element reference".

mod condition;
mod document;
mod evaluate;
mod pattern;

pub use document::{Policy, PolicyError};
pub use evaluate::{Decision, Request, decide};
