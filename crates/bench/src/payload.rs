//! What is published: stamped, so that it can be checked, and of changing size and content where
//! that is wanted.
//!
//! Invariant: a payload is JSON, carries its tag, and depends on nothing but the seed and its
//! place in the run.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::usage::usage_error;

use super::publication_tag::{PublicationTag, SIZE_MIN};

/// Size and content of the payloads to publish.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PayloadSpec {
    /// Bytes, one of these in turn at random.
    pub(crate) sizes: Vec<u32>,
    /// JSON with places to fill: `{counter}`, `{number}` and `{text}`.
    pub(crate) template: Option<String>,
}

const SIZE_MAX: u32 = 1 << 20;
/// `{number}` is below this.
const NUMBER_MAX: u64 = 1_000_000;

impl PayloadSpec {
    /// A payload that can be published.
    pub(crate) fn new(sizes: &[u32], template: Option<&str>) -> anyhow::Result<PayloadSpec> {
        let payload = PayloadSpec { sizes: sizes.to_vec(), template: template.map(str::to_owned) };
        if sizes.is_empty() || !sizes.iter().all(|size| (SIZE_MIN..=SIZE_MAX).contains(size)) {
            usage_error!(
                "--size must be from {SIZE_MIN} (the stamp that identifies a publication) to {SIZE_MAX}"
            );
        }
        let mut sample = Vec::new();
        let tag = PublicationTag { stream: 0, number: 0, planned: 0 };
        payload.write(tag, &mut Rng::with_seed(0), &mut sample);
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&sample) {
            let filled = String::from_utf8_lossy(&sample).into_owned();
            usage_error!("--template is not JSON when it is filled: {error}: {filled}");
        }
        Ok(payload)
    }

    /// Appends the payload of this publication.
    pub(crate) fn write(&self, tag: PublicationTag, random: &mut Rng, out: &mut Vec<u8>) {
        let size = match self.sizes[..] {
            [size] => size,
            _ => self.sizes[random.usize(..self.sizes.len())],
        };
        let Some(template) = &self.template else { return tag.write(size, out) };
        let begin = out.len();
        out.extend_from_slice(br#"{"stamp":"#);
        tag.write(SIZE_MIN, out);
        out.extend_from_slice(br#","data":"#);
        let counter = tag.number.to_string();
        let number = random.u64(..NUMBER_MAX).to_string();
        let filled = template.replace("{counter}", &counter).replace("{number}", &number);
        let fixed = out.len() - begin + filled.replace("{text}", "").len() + 1;
        let places = filled.matches("{text}").count().max(1);
        let text = text((size as usize).saturating_sub(fixed) / places, random);
        out.extend_from_slice(filled.replace("{text}", &text).as_bytes());
        out.push(b'}');
    }
}

/// Letters and spaces of about the entropy of a language, so that compression meets something.
fn text(length: usize, random: &mut Rng) -> String {
    const LETTERS: &[u8; 32] = b"eeeetttaaaooiinnsshhrrddlucmw   ";
    let mut bits = (0, 0);
    let letter = |_| {
        if bits.1 == 0 {
            bits = (random.u64(..), 12);
        }
        let index = (bits.0 & 31) as usize;
        bits = (bits.0 >> 5, bits.1 - 1);
        char::from(LETTERS[index])
    };
    (0..length).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::super::publication_tag::TagReader;
    use super::*;

    #[test]
    fn a_filled_template_has_its_size_and_its_stamp() {
        let template = r#"{"n":{counter},"price":{number},"event":"{text}","more":"{text}"}"#;
        let payload = PayloadSpec::new(&[200, 400], Some(template)).unwrap();
        let mut random = Rng::with_seed(7);
        let mut sizes = [0, 0];
        for number in 0..100 {
            let tag = PublicationTag { stream: 3, number, planned: 9 };
            let mut out = Vec::new();
            payload.write(tag, &mut random, &mut out);
            assert_eq!(TagReader::new().find(&out), Some(tag));
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["data"]["n"], number);
            // Two texts share what is left.
            let index = [199..=200, 399..=400].iter().position(|size| size.contains(&out.len()));
            sizes[index.unwrap_or_else(|| panic!("{} bytes", out.len()))] += 1;
        }
        assert!(sizes.iter().all(|count| *count > 20), "{sizes:?}");
    }

    #[test]
    fn what_cannot_be_published_is_refused() {
        assert!(PayloadSpec::new(&[], None).is_err() && PayloadSpec::new(&[3], None).is_err());
        let error = PayloadSpec::new(&[128], Some("{\"a\":}")).unwrap_err().to_string();
        assert!(error.starts_with("--template is not JSON"), "{error}");
    }
}
