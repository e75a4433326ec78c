//! Pages with opaque tokens.

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_token: Option<String>,
}

/// The page that `token` names (the first without one), at most `size` items; `None` if no such
/// token was ever given out.
pub(crate) fn page<T>(items: Vec<T>, token: Option<&str>, size: usize) -> Option<Page<T>> {
    let start: usize = match token {
        None | Some("") => 0,
        Some(token) => token.strip_prefix("page-")?.parse().ok()?,
    };
    let end = start.saturating_add(size.max(1));
    let more = end < items.len();
    Some(Page {
        items: items.into_iter().skip(start).take(end - start).collect(),
        next_token: more.then(|| format!("page-{end}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_by_two() {
        let mut token = None;
        let mut seen = Vec::new();
        loop {
            let next = page((0..5).collect(), token.as_deref(), 2).expect("a token we gave");
            seen.push(next.items);
            token = next.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(page(vec![0], Some("2"), 2), None);
    }
}
