//! Amounts of cores and memory, as Kubernetes writes them: `500m`, `2`, `1600Mi`, `16G`.

use std::fmt;

/// An amount of a resource: its text as it was written, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    text: String,
    value: f64,
}

impl Quantity {
    /// Reads an amount by the grammar of Kubernetes: a number that is not negative, and a suffix of `m`, `k`, `M`, `G`,
    /// `T`, `P`, `E` (powers of 1000), `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei` (powers of 1024) or an exponent (`1e3`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        if number.is_empty() || number == "." {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let factor = match suffix {
            "" => 1.0,
            "n" => 1e-9,
            "u" => 1e-6,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "P" => 1e15,
            "E" => 1e18,
            "Ki" => 1024.0,
            "Mi" => 1024.0_f64.powi(2),
            "Gi" => 1024.0_f64.powi(3),
            "Ti" => 1024.0_f64.powi(4),
            "Pi" => 1024.0_f64.powi(5),
            "Ei" => 1024.0_f64.powi(6),
            exponent => {
                let exponent = exponent.strip_prefix(['e', 'E'])?;
                10.0_f64.powi(exponent.parse::<i32>().ok().filter(|power| power.abs() <= 18)?)
            }
        };
        Some(Self {
            text: text.to_owned(),
            value: number * factor,
        })
    }

    /// An amount by its text and value, which the caller knows to agree.
    pub(super) fn fixed(text: &str, value: f64) -> Self {
        Self {
            text: text.to_owned(),
            value,
        }
    }

    /// As it was written, and as Kubernetes takes it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In cores, bytes or pieces, whatever it is an amount of.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("2", 2.0),
            ("0.5", 0.5),
            (".5", 0.5),
            ("500m", 0.5),
            ("1600Mi", 1600.0 * 1024.0 * 1024.0),
            ("16G", 16e9),
            ("1e3", 1000.0),
            ("2k", 2000.0),
            ("1E", 1e18),
            ("12E2", 1200.0),
        ] {
            assert_eq!(
                Quantity::parse(text).map(|quantity| quantity.value()),
                Some(value),
                "{text}"
            );
        }
        for text in ["", ".", "-1", "1 G", "1GB", "1K", "half", "1.2.3", "1e", "1e99", "Mi"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
