//! Releases of Endpoint Pickers, as the tags of their images name them.

use super::sources::Chart;

/// A release: major and minor version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// Returns the release that a tag such as `v1.4.0` names; other tags, such as `main`, name none.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let mut numbers = tag.strip_prefix('v').unwrap_or(tag).split('.');
        let mut number = || numbers.next()?.parse().ok();
        Some(Self(number()?, number()?))
    }

    /// Returns the newest release of a chart that this command knows.
    pub fn newest(chart: Chart) -> Self {
        match chart {
            Chart::Gie => Self(1, 5),
            Chart::Router => Self(0, 10),
            Chart::ModelService => Self(0, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_a_release_or_none() {
        for tag in ["v1.4.0", "1.4", "v1.4.0-rc.1"] {
            assert_eq!(Release::of_tag(tag), Some(Release(1, 4)), "{tag}");
        }
        for tag in ["main", "v20250514-a1b2c3", "", "v1", "v1.x"] {
            assert_eq!(Release::of_tag(tag), None, "{tag}");
        }
        assert!(Release(0, 10) > Release(0, 9) && Release(1, 0) > Release(0, 10));
    }
}
