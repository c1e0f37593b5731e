//! The Markdown that pull request bodies are written in, as HTML.
//!
//! Only what `proposal::body` writes: headings, lists, tables, quotes, fences, bold, emphasis, code. No links, images or raw
//! HTML, so nothing in a body can become one: whatever is not understood stays text.

use maud::{Markup, PreEscaped, html};
use sluice_rules::proposal::body::escape::visible;

/// Charts in bodies are left out: the page has its own.
const CHART: &str = "mermaid";

pub(super) fn render(markdown: &str) -> Markup {
    let lines: Vec<&str> = markdown.lines().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut open = 0;
    while let Some(line) = lines.get(at) {
        let trimmed = line.trim();
        at += 1;
        let block = if trimmed.is_empty() || (trimmed.starts_with("<!--") && trimmed.ends_with("-->")) {
            continue;
        } else if trimmed == "<details>" {
            open += 1;
            // The summary is part of it: a `<details>` without one is not ours.
            let summary =
                lines.get(at).and_then(|next| next.trim().strip_prefix("<summary>")?.strip_suffix("</summary>"));
            at += usize::from(summary.is_some());
            PreEscaped(format!(
                "<details class=\"inner\"><summary>{}</summary>",
                html! { (visible(summary.unwrap_or("Details"))) }.into_string()
            ))
        } else if trimmed == "</details>" && open > 0 {
            open -= 1;
            PreEscaped("</details>".to_owned())
        } else if let Some(language) = trimmed.strip_prefix("```") {
            let body: Vec<&str> = lines[at..].iter().take_while(|line| line.trim() != "```").copied().collect();
            at += body.len() + 1;
            if language == CHART {
                continue;
            }
            html! { pre tabindex="0" { (visible_lines(&body.join("\n"))) } }
        } else if let Some(heading) = trimmed.strip_prefix("### ") {
            html! { h5 { (inline(heading)) } }
        } else if trimmed.starts_with("- ") {
            let items = take(&lines, &mut at, "- ");
            html! { ul { @for item in items { li { (inline(item)) } } } }
        } else if trimmed.starts_with("> ") {
            let quoted = take(&lines, &mut at, "> ");
            html! { blockquote { @for line in quoted { p { (inline(line)) } } } }
        } else if trimmed.starts_with('|') {
            at -= 1;
            let rows: Vec<&str> =
                lines[at..].iter().map(|line| line.trim()).take_while(|line| line.starts_with('|')).collect();
            at += rows.len();
            table(&rows)
        } else if matches!(lines[at..], ["", next, ..] if next.strip_prefix("```") == Some(CHART)) {
            // Words about a chart go with it.
            continue;
        } else {
            html! { p { (inline(trimmed)) } }
        };
        out.push_str(&block.into_string());
    }
    out.push_str(&"</details>".repeat(open));
    PreEscaped(out)
}

fn take<'a>(lines: &[&'a str], at: &mut usize, prefix: &str) -> Vec<&'a str> {
    *at -= 1;
    let taken: Vec<&str> = lines[*at..].iter().map_while(|line| line.trim().strip_prefix(prefix)).collect();
    *at += taken.len();
    taken
}

fn table(rows: &[&str]) -> Markup {
    let cells = |row: &str| {
        let inner = row.trim_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let head = rows.first().map(|row| cells(row)).unwrap_or_default();
    let labels: Vec<String> = head.iter().map(|cell| visible(&cell.replace(['`', '*'], ""))).collect();
    let body = rows.iter().skip(1).filter(|row| !row.chars().all(|c| "|-: ".contains(c)));
    html! {
        table.cards {
            thead { tr { @for cell in &head { th scope="col" { (inline(cell)) } } } }
            tbody {
                @for row in body {
                    tr {
                        @for (index, cell) in cells(row).iter().enumerate() {
                            td data-label=(labels.get(index).map_or("", String::as_str)) { span { (inline(cell)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Code spans, bold and emphasis; the rest is text.
fn inline(text: &str) -> Markup {
    let mut out = String::new();
    let (mut strong, mut emphasis) = (false, false);
    for (position, part) in text.split('`').enumerate() {
        if position % 2 == 1 {
            out.push_str(&html! { code { bdi { (visible(part)) } } }.into_string());
            continue;
        }
        let mut rest = part;
        while let Some(star) = rest.find('*') {
            out.push_str(&html! { (visible(&rest[..star])) }.into_string());
            let (tag, flag, length) =
                if rest[star..].starts_with("**") { ("strong", &mut strong, 2) } else { ("em", &mut emphasis, 1) };
            out.push_str(&format!("<{}{tag}>", if *flag { "/" } else { "" }));
            *flag = !*flag;
            rest = &rest[star + length..];
        }
        out.push_str(&html! { (visible(rest)) }.into_string());
    }
    if emphasis {
        out.push_str("</em>");
    }
    if strong {
        out.push_str("</strong>");
    }
    PreEscaped(out)
}

/// [`visible`], but lines stay lines and tabs tabs.
pub(super) fn visible_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(visible).collect::<Vec<_>>().join("\t");
    text.split('\n').map(|text| line(text.strip_suffix('\r').unwrap_or(text))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_bodies_use() {
        let html =
            render("<!-- x -->\n### Why\n\n**`a`** is *b*\n\n- one\n- two\n\n| x | y |\n|---|---:|\n| `1` | 2 |\n")
                .into_string();
        assert_eq!(
            html,
            "<h5>Why</h5><p><strong><code><bdi>a</bdi></code></strong> is <em>b</em></p><ul><li>one</li><li>two</li></ul>\
             <table class=\"cards\"><thead><tr><th scope=\"col\">x</th><th scope=\"col\">y</th></tr></thead><tbody><tr>\
             <td data-label=\"x\"><span><code><bdi>1</bdi></code></span></td><td data-label=\"y\"><span>2</span></td></tr></tbody></table>"
        );
    }

    #[test]
    fn what_it_does_not_understand_stays_text() {
        for text in
            ["<script>alert(1)</script>", "[x](javascript:1)", "![](//x)", "</details>", "<details open ontoggle=x>"]
        {
            let html = render(text).into_string();
            assert!(!html.contains("<script") && !html.contains("<a ") && !html.contains("<img"), "{html}");
            assert!(html.starts_with("<p>") && html.ends_with("</p>"), "{html}");
        }
    }

    #[test]
    fn leaves_out_charts_and_the_words_about_them() {
        let html = render("one\n\nred is harm\n\n```mermaid\nline [1]\n```\n\ntwo").into_string();
        assert_eq!(html, "<p>one</p><p>two</p>");
    }

    #[test]
    fn unclosed_marks_close_with_their_line() {
        assert_eq!(render("**a *b").into_string(), "<p><strong>a <em>b</em></strong></p>");
    }
}
