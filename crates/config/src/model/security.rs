//! The sHype security label of a domain.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::pieces;
use crate::error::SpecError;

/// `access_control = ['policy=P,label=L']`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessControl {
    /// Name of the policy the label belongs to.
    pub policy: String,
    /// Name of the label.
    pub label: String,
}

impl AccessControl {
    /// Reads `policy=P,label=L`.
    ///
    /// # Errors
    /// Other keys, or one of the two missing.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let (mut policy, mut label) = (None, None);
        for piece in pieces(spec) {
            let help = "write policy=NAME,label=NAME";
            let Some((key, value)) = piece.pair().filter(|(_, value)| !value.text.is_empty())
            else {
                return Err(piece.error(format!("`{}` is not key=value", piece.text)).help(help));
            };
            match key.text {
                "policy" => key.set(&mut policy, value.text.to_owned())?,
                "label" => key.set(&mut label, value.text.to_owned())?,
                // What newer versions print in front.
                "policytype" | "type" if value.text == "ACM" => {}
                _ => {
                    let message = format!("`{}` is not a key of access_control", key.text);
                    return Err(key.error(message).help(help));
                }
            }
        }
        let missing = |name| SpecError::new(0..spec.len(), format!("`{name}=` is missing"));
        Ok(Self {
            policy: policy.ok_or_else(|| missing("policy"))?,
            label: label.ok_or_else(|| missing("label"))?,
        })
    }
}

impl fmt::Display for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy={},label={}", self.policy, self.label)
    }
}
