use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

fn parse(text: &str) -> File {
    File::parse("policies/route.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?} in {text:?}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = File::parse("policies/route.yaml", text.as_bytes()).expect_err("this text has a problem");
    problems.iter().map(ToString::to_string).collect()
}

fn field(text: &str) -> FieldPath {
    text.parse().expect("a field path")
}

fn edits(edits: &[(&str, u64)]) -> Vec<Edit> {
    edits.iter().map(|(text, value)| Edit { field: field(text), value: *value }).collect()
}

#[track_caller]
fn changes(before: &str, edit: &[(&str, u64)], after: &str) {
    let result = parse(before).edit(0, &edits(edit));
    assert_eq!(result.as_deref(), Ok(after), "{before:?}");
}

#[track_caller]
fn refuses(before: &str, edit: &[(&str, u64)], message: &str) {
    let error = parse(before).edit(0, &edits(edit)).expect_err("this edit is refused").to_string();
    assert_eq!(error, message);
}

/// Every value in a document that is neither mapping nor sequence, with its field path.
fn leaves(value: &Value) -> Vec<(FieldPath, &Value)> {
    let mut found = Vec::new();
    let mut open = vec![(FieldPath::root(), value)];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(map) => open.extend(map.iter().rev().map(|(key, value)| (path.key(key.clone()), value))),
            Value::Array(items) => {
                open.extend(items.iter().enumerate().rev().map(|(index, value)| (path.index(index), value)));
            }
            _ => found.push((path, value)),
        }
    }
    found
}

mod reading {
    use super::*;

    #[test]
    fn numbers_the_documents_that_say_something() {
        let file = parse("# a\n---\n---\na: 1\n...\n---\n~\n--- # c\nb: 2");
        let values: Vec<_> = file.documents().iter().map(|document| (document.index(), document.value())).collect();
        assert_eq!(values, [(0, &json!({"a": 1})), (1, &json!({"b": 2}))]);
        assert!(parse("").documents().is_empty());
        assert!(parse("# only a comment").documents().is_empty());
        assert!(parse("---\n...\n---\n").documents().is_empty());
    }

    #[test]
    fn follows_merge_keys_of_merged_mappings() {
        let file = parse("a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {z: 3, <<: *b}\n");
        assert_eq!(file.documents()[0].value()["c"], json!({"z": 3, "y": 2, "x": 1}));
    }

    #[test]
    fn locates_in_bytes_and_tells_columns_in_characters() {
        let text = "\u{feff}é: {日本: 20}\r\nb: \"x\"\r\n";
        let file = parse(text);
        let place = file.documents()[0].locate(&FieldPath::root().key("é").key("日本")).expect("a place");
        assert_eq!((place.line, place.column, &text[place.span]), (1, 9, "20"));
        let place = file.documents()[0].locate(&field("b")).expect("a place");
        assert_eq!((place.line, place.column, &text[place.span]), (2, 4, "\"x\""));
        assert_eq!(file.documents()[0].locate(&field("c")), None);
    }

    #[test]
    fn locates_what_is_merged_where_the_anchor_is() {
        let file = parse("a: &a {weight: 1}\nb:\n  <<: *a\nc: *a\n");
        for path in ["a.weight", "b.weight", "c.weight"] {
            let place = file.documents()[0].locate(&field(path)).expect("a place");
            assert_eq!((place.line, place.column), (1, 16), "{path}");
        }
    }

    #[test]
    fn a_block_ends_with_its_last_value() {
        let text = "a:\n  b:\n    - c: 1\n\n# comment\n\nd: 2\n";
        let file = parse(text);
        let place = file.documents()[0].locate(&field("a")).expect("a place");
        assert_eq!(&text[place.span], "b:\n    - c: 1");
    }

    #[test]
    fn names_both_places_of_a_duplicate_key() {
        let expected = "policies/route.yaml:3:1: duplicate key `a`, first at 1:1; remove one of the two";
        assert_eq!(problems("a: 1\nb: 2\n'a': 3\n"), [expected]);
    }

    #[test]
    fn warns_of_values_that_readers_disagree_about() {
        let file = parse("a: on\nb: 'on'\n---\nc: 0777\n");
        let warnings = |index: usize| file.documents()[index].warnings().iter().map(ToString::to_string);
        assert_eq!(
            warnings(0).collect::<Vec<_>>(),
            [
                "policies/route.yaml:1:4: YAML 1.1 reads `on` as true, YAML 1.2 as text; quote it if it is text, else write \
              `true` or `false`"
            ]
        );
        assert_eq!(
            warnings(1).collect::<Vec<_>>(),
            [
                "policies/route.yaml:4:4: YAML 1.1 reads `0777` as an octal number, YAML 1.2 as a decimal number or text; \
              quote it if it is text, else write the number in decimal digits"
            ]
        );
    }
}

mod bounds {
    use super::*;

    #[track_caller]
    fn stops(text: &str, part: &str) {
        let problems = problems(text);
        assert!(
            problems.last().is_some_and(|problem| problem.contains(part)),
            "{:?}",
            &problems[..problems.len().min(3)]
        );
    }

    #[test]
    fn a_file_may_be_a_mebibyte_and_no_larger() {
        let mut text = "# ".repeat(MAX_SIZE / 2);
        assert!(parse(&text).documents().is_empty());
        text.push('#');
        stops(&text, "1048577 bytes");
    }

    #[test]
    fn nesting_may_be_64_deep_and_no_deeper() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(parse(&nested(64)).documents().len(), 1);
        stops(&nested(65), "more than 64 deep");
        stops(&nested(300), "more than 64 deep");
        stops(&"[".repeat(100_000), "more than 64 deep");
        stops(&"{a: ".repeat(100_000), "more than 64 deep");
        stops(&"- ".repeat(100_000), "more than 64 deep");
        let block: String = (0..1000).map(|depth| " ".repeat(depth) + "a:\n").collect();
        stops(&block, "more than 64 deep");
    }

    #[test]
    fn aliases_add_to_the_depth() {
        let mut text = String::from("- &a0 [x]\n");
        for level in 1..70 {
            text += &format!("- &a{level} [*a{}]\n", level - 1);
        }
        stops(&text, "more than 64 deep");
    }

    #[test]
    fn a_file_may_have_100_aliases_and_no_more() {
        let aliases = |count: usize| format!("a: &a 1\nb: [{}]\n", vec!["*a"; count].join(", "));
        assert_eq!(parse(&aliases(100)).documents().len(), 1);
        stops(&aliases(101), "more than 100 aliases");
    }

    #[test]
    fn aliases_may_not_expand_without_end() {
        let many = vec!["1"; 5000].join(", ");
        stops(&format!("a: &a [{many}]\nb: [{}]\n", vec!["*a"; 99].join(", ")), "more than 250000 nodes");
        let long = "x".repeat(500_000);
        stops(&format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 99].join(", ")), "more than 250000 nodes");
        let keys: String = (0..2000).map(|key| format!("  k{key}: 1\n")).collect();
        let merges = |count: usize| (0..count).map(|key| format!("m{key}: {{<<: *a}}\n")).collect::<String>();
        stops(&format!("a: &a\n{keys}{}", merges(99)), "more than 250000 nodes");
        stops(&format!("a: &a\n{}{}", &keys[..16], merges(2000)), "more than 100 aliases");
    }

    #[test]
    #[allow(clippy::disallowed_types, reason = "how long it takes is what is tested")]
    fn hostile_files_of_a_mebibyte_end_soon() {
        let started = std::time::Instant::now();
        let unit = |unit: &str| unit.repeat((MAX_SIZE - 16) / unit.len());
        let texts = [
            unit("---\n"),
            unit("[],"),
            unit("a\n"),
            unit("? "),
            unit("a: b: "),
            unit("- \n"),
            unit("#\n"),
            unit("\n"),
            unit(" "),
            unit("\"\n"),
            unit("&a "),
            unit("!a "),
            unit("%a\n"),
            unit("- !x\n"),
            unit("- yes\n"),
            unit("--- [\n"),
            unit("a: 1\n"),
            unit("{},\n"),
            unit("- a: 1\n"),
            unit("---\na: 1\n...\n"),
            format!("[{}]", unit("a,")),
            format!("\"{}\"", unit("\n")),
            format!("a: |\n{}", unit("  \n")),
            format!("a: >\n{}", unit(" x\n\n")),
            format!("a: '{}'", unit("''")),
            format!("a: {}", unit("x ")),
            format!("- {}: 1", unit("x")),
            format!("{{{}", unit("a: 1,")),
            format!("[{}", unit("? ")),
            unit("'"),
            unit("|\n"),
            unit("\u{feff}"),
            unit("%YAML 1.2\n---\n"),
            unit("%FOO\n---\na\n...\n"),
        ];
        for text in &texts {
            if let Ok(file) = File::parse("hostile.yaml", text.as_bytes()) {
                let _ = file.edit(0, &[]);
            }
            eprintln!("{:?} after {:?}", started.elapsed(), text.chars().take(12).collect::<String>());
        }
        assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    }

    #[test]
    fn says_where_a_text_is_no_text() {
        let problem = |bytes: &[u8]| File::parse("a.yaml", bytes).expect_err("no text")[0].to_string();
        assert_eq!(problem(b"a: 1\nb: \xc3\xa9\xff"), "a.yaml:2:5: byte 10 is not UTF-8; save the file as UTF-8");
        assert_eq!(problem(b"a: \0"), "a.yaml:1:4: byte 3 is NUL; remove it");
        assert_eq!(problem(b"\xff\xfea\0"), "a.yaml:1:1: byte 0 is not UTF-8; save the file as UTF-8");
    }
}

mod edits {
    use super::*;

    #[test]
    fn changes_only_the_digits() {
        changes("a:   20\t# é\n", &[("a", 5)], "a:   5\t# é\n");
        changes("'a' : 20 \nb: 1\n", &[("a", 100)], "'a' : 100 \nb: 1\n");
        changes("? a\n: 20\n", &[("a", 5)], "? a\n: 5\n");
        changes("- {n: é, a: 20}\r\n- 1", &[("[0].a", 5), ("[1]", 9)], "- {n: é, a: 5}\r\n- 9");
        changes("a: &x !!int 20 # c", &[("a", 5)], "a: &x !!int 5 # c");
        changes("a: -1", &[("a", 5)], "a: 5");
    }

    #[test]
    fn a_quoted_number_keeps_its_quotes() {
        changes("a: \"20\"\nb: '1'\n", &[("a", 5), ("b", 95)], "a: \"5\"\nb: '95'\n");
        changes("a: !!int '20'", &[("a", 5)], "a: !!int '5'");
    }

    #[test]
    fn fills_in_a_null() {
        changes("a:\nb: 1\n", &[("a", 5)], "a: 5\nb: 1\n");
        changes("a: # c\r\nb: 1\n", &[("a", 5)], "a: 5 # c\r\nb: 1\n");
        changes("a: ~ # c\n", &[("a", 5)], "a: 5 # c\n");
        changes("a: null", &[("a", 5)], "a: 5");
        changes("a:", &[("a", 5)], "a: 5");
        changes("{a: , b: }", &[("a", 5), ("b", 6)], "{a: 5 , b: 6 }");
        changes("\"a\" :\n", &[("a", 5)], "\"a\" : 5\n");
    }

    #[test]
    fn adds_a_line_behind_the_last_entry() {
        changes("b:\n  c: 1\nd: 2\n", &[("b.w", 5)], "b:\n  c: 1\n  w: 5\nd: 2\n");
        changes(
            "- c: 1 # c\n# d\n\n- e: 2",
            &[("[0].w", 5), ("[1].w", 6)],
            "- c: 1 # c\n  w: 5\n# d\n\n- e: 2\n  w: 6",
        );
        changes("b:\r\n  c: 1\r\nd: 2\r\n", &[("b.w", 5)], "b:\r\n  c: 1\r\n  w: 5\r\nd: 2\r\n");
        changes("b:\r\n  c: 1", &[("b.w", 5)], "b:\r\n  c: 1\r\n  w: 5");
        changes("- c: {\n    x: 1\n  } # c\n- 2\n", &[("[0].w", 5)], "- c: {\n    x: 1\n  } # c\n  w: 5\n- 2\n");
        changes("- c:\n    d:\n    - 1\n\n- 2\n", &[("[0].w", 5)], "- c:\n    d:\n    - 1\n  w: 5\n\n- 2\n");
        changes("- c:\n  # d\n- 2\n", &[("[0].w", 5)], "- c:\n  w: 5\n  # d\n- 2\n");
        changes("- &k c: a\n    b\n- 2\n", &[("[0].w", 5)], "- &k c: a\n    b\n  w: 5\n- 2\n");
        changes("- c: &e\n- 2\n", &[("[0].w", 5)], "- c: &e\n  w: 5\n- 2\n");
        changes("- ? c\n  : d\n- 2\n", &[("[0].w", 5)], "- ? c\n  : d\n  w: 5\n- 2\n");
        changes("- c: &x 1\n  d: *x\n- 2\n", &[("[0].w", 5)], "- c: &x 1\n  d: *x\n  w: 5\n- 2\n");
        changes("a: 1\n...\n---\nb: 2\n", &[("w", 5)], "a: 1\nw: 5\n...\n---\nb: 2\n");
    }

    #[test]
    fn adds_a_line_behind_a_block_scalar() {
        changes("- c: |\n    x\n\n# y\n- 2\n", &[("[0].w", 5)], "- c: |\n    x\n  w: 5\n\n# y\n- 2\n");
        changes("- c: |+\n    x\n\n- 2\n", &[("[0].w", 5)], "- c: |+\n    x\n\n  w: 5\n- 2\n");
        changes("- c: >-\n    # x\n  # y\n- 2\n", &[("[0].w", 5)], "- c: >-\n    # x\n  w: 5\n  # y\n- 2\n");
        changes("- c: |-\r\n    x\r\n\r\n- 2\r\n", &[("[0].w", 5)], "- c: |-\r\n    x\r\n  w: 5\r\n\r\n- 2\r\n");
        changes("- c: |-\n    x", &[("[0].w", 5)], "- c: |-\n    x\n  w: 5");
    }

    #[test]
    fn refuses_to_end_a_block_scalar_that_the_file_cuts_off() {
        let message = "policies/route.yaml: the edited text does not verify: document 0 has other changes";
        refuses("- c: |\n    x", &[("[0].w", 5)], message);
    }

    #[test]
    fn adds_an_entry_in_braces() {
        changes("- {c: 1}\n", &[("[0].w", 5)], "- {c: 1, w: 5}\n");
        changes("- { c: [a, b] } # {\n", &[("[0].w", 5)], "- { c: [a, b], w: 5 } # {\n");
        changes("- {c: 1, }\n", &[("[0].w", 5)], "- {c: 1, w: 5 }\n");
        changes("- {}\n", &[("[0].w", 5)], "- {w: 5}\n");
        changes("- {c: }\n", &[("[0].w", 5)], "- {c: , w: 5}\n");
        changes("- {c}\n", &[("[0].w", 5)], "- {c, w: 5}\n");
        changes("- {c: http://x}\n", &[("[0].w", 5)], "- {c: http://x, w: 5}\n");
        changes("{\n  c: 1 # d }\n}\n", &[("w", 5)], "{\n  c: 1, w: 5 # d }\n}\n");
        changes("{\"c\": {\"d\": 1}}", &[("c.w", 5)], "{\"c\": {\"d\": 1, \"w\": 5}}");
    }

    #[test]
    fn makes_several_edits_at_one_place() {
        changes("a:\n  b: {c: 1}\n", &[("a.b.c", 2), ("a.b.w", 3)], "a:\n  b: {c: 2, w: 3}\n");
        changes("- c: 1\n", &[("[0].w", 5), ("[0].v", 6)], "- c: 1\n  w: 5\n  v: 6\n");
        changes("a:\n  b: 1\n", &[("w", 5), ("a.w", 6)], "a:\n  b: 1\n  w: 6\nw: 5\n");
    }

    #[test]
    fn quotes_a_key_that_would_not_be_text() {
        changes("a: 1", &[("on", 5), ("x: y", 6)], "a: 1\n\"on\": 5\n\"x: y\": 6");
    }

    #[test]
    fn touches_one_document_only() {
        let file = parse("w: 1\n---\nw: 1\n---\nw: 1\n");
        assert_eq!(file.edit(1, &edits(&[("w", 5)])).as_deref(), Ok("w: 1\n---\nw: 5\n---\nw: 1\n"));
        let error = file.edit(3, &[]).expect_err("there are three");
        assert_eq!(error.to_string(), "policies/route.yaml: there is no document 3; the file has 3");
    }

    #[test]
    fn without_edits_the_text_stays() {
        changes("a: 1", &[], "a: 1");
    }

    #[test]
    fn refuses_what_others_would_feel() {
        let text = "a: &a {w: 1}\nb: *a\nc: {<<: *a, x: 1}\nd: &d 1\ne: *d\nf: &f {w: 1}\n";
        let end = "so other fields would change with it; write the value out first";
        let message =
            |place: &str, field: &str, how: &str| format!("policies/route.yaml:{place}: `{field}` {how}, {end}");
        refuses(text, &[("a.w", 5)], &message("1:7", "a.w", "is inside an anchor that aliases use"));
        refuses(text, &[("a.v", 5)], &message("1:7", "a.v", "is inside an anchor that aliases use"));
        refuses(text, &[("b.w", 5)], &message("2:4", "b.w", "is reached through an alias"));
        refuses(text, &[("c.w", 5)], &message("3:5", "c.w", "is reached through a merge key"));
        refuses(text, &[("d", 5)], &message("4:7", "d", "is inside an anchor that aliases use"));
        refuses(text, &[("e", 5)], &message("5:4", "e", "is reached through an alias"));
        let result = parse(text).edit(0, &edits(&[("f.w", 5), ("c.x", 6), ("c.v", 7)]));
        assert!(result.is_ok_and(|text| text.contains("{<<: *a, x: 6, v: 7}") && text.contains("&f {w: 5}")));
    }

    #[test]
    fn refuses_what_is_no_integer() {
        for (text, place) in [
            ("w: ten", "1:4"),
            ("w: 1.5", "1:4"),
            ("w: 0777", "1:4"),
            ("w: true", "1:4"),
            ("w: '1.5'", "1:4"),
            ("w: |\n  5\n", "2:3"),
        ] {
            let message = format!("policies/route.yaml:{place}: cannot change `w`: its value is not an integer");
            refuses(text, &[("w", 5)], &message);
        }
        let message = "policies/route.yaml:1:4: cannot change `w`: it is a mapping or a sequence, not an integer";
        refuses("w: [1]", &[("w", 5)], message);
        refuses("w: &x\n", &[("w", 5)], "policies/route.yaml:1:6: cannot change `w`: its value is empty");
        refuses("[a: 1]", &[("[0].w", 5)], "policies/route.yaml:1:2: cannot change `[0].w`: the mapping has no braces");
    }

    #[test]
    fn refuses_a_field_without_a_mapping_to_put_it_into() {
        for path in ["a[1]", "b.w", "a.w", "c[0].w", ""] {
            let message = format!("policies/route.yaml: there is no field `{path}`, and no mapping to add it to");
            let text = if path.is_empty() { "[]" } else { "a: [1]\nc: 1" };
            if path.is_empty() {
                refuses(
                    text,
                    &[("", 1)],
                    "policies/route.yaml:1:1: cannot change ``: it is a mapping or a sequence, not an integer",
                );
            } else {
                refuses(text, &[(path, 5)], &message);
            }
        }
    }

    #[test]
    fn refuses_to_edit_a_field_twice() {
        refuses("a: 1", &[("a", 2), ("a", 3)], "policies/route.yaml: `a` is edited twice");
    }
}

mod fixtures {
    #![allow(clippy::disallowed_methods, reason = "the fixtures are files")]

    use super::*;
    use std::fmt::Write;

    /// Calls `check` with each YAML file of a folder of `testdata/documents/`, and keeps its answer beside the file.
    fn each(folder: &str, check: fn(&str, &[u8]) -> String) {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/documents/");
        let folder = format!("{root}{folder}");
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        names.sort();
        assert!(!names.is_empty());
        for name in names {
            let bytes = std::fs::read(format!("{folder}/{name}")).expect("the file is there");
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(&folder);
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), check(&name, &bytes)));
        }
    }

    #[test]
    fn valid_files_say_what_they_say() {
        each("valid", |name, bytes| {
            let file = File::parse(name, bytes).unwrap_or_else(|problems| panic!("{problems:?}"));
            let mut seen = String::new();
            for document in file.documents() {
                let _ = writeln!(seen, "document {}", document.index());
                for (path, value) in leaves(document.value()) {
                    let place = document.locate(&path).expect("every value has a place");
                    let written = &file.text()[place.span];
                    let _ = writeln!(seen, "{}:{} {path} = {value}, written {written:?}", place.line, place.column);
                }
                for warning in document.warnings() {
                    let _ = writeln!(seen, "{warning}");
                }
            }
            seen
        });
    }

    #[test]
    fn invalid_files_are_refused_with_every_mistake() {
        each("invalid", |name, bytes| {
            let problems = File::parse(name, bytes).expect_err("the file is refused");
            problems.iter().map(|problem| format!("{problem}\n")).collect()
        });
    }
}

mod properties {
    use super::*;

    /// A weight, and how it is written.
    fn weight() -> impl Strategy<Value = String> {
        (0_u64..1000, 0..5).prop_map(|(number, style)| match style {
            0 => format!("\"{number}\""),
            1 => format!("'{number}'"),
            2 => format!("&w{number} {number}"),
            _ => number.to_string(),
        })
    }

    fn comment() -> impl Strategy<Value = String> {
        let known = ["", "", " # weight: 3", "\t# é 日本", "  ", " #{", " # 'it's", "\t"];
        prop::sample::select(known.to_vec()).prop_map(str::to_owned)
    }

    fn text() -> impl Strategy<Value = String> {
        let known =
            ["v1", "'it''s: # no'", "\"\\u00e9\\\"\"", "日本", "http://x/#y", "{a: [1, 2]}", "[]", "a b", "!!str 5"];
        prop::sample::select(known.to_vec()).prop_map(str::to_owned)
    }

    /// A piece of a YAML file, whether or not it fits the one before it.
    fn part() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a: ", "b:", "w: 5", "- ", "\n", "\n", "\n  ", "\n  ", "\n    ", "{", "}", "[", "]", ", ", "|", ">-", "|+",
            "'x'", "\"y\"", " # c", "&a ", "*a", "? ", ": ", "~", "1", "x y", "é", "\t", " ", "---", "...", "%",
            "!!str ", "\r\n", "\u{feff}", "'", "\"",
        ])
    }

    /// One backend as lines or in braces, with or without a weight.
    fn backend() -> impl Strategy<Value = Vec<String>> {
        (prop::option::weighted(0.8, weight()), text(), comment(), comment(), any::<bool>(), 0..5).prop_map(
            |(weight, name, first, second, quoted, style)| {
                let key = if quoted { "'weight'" } else { "weight" };
                let weight = weight.map(|weight| format!("{key}: {weight}"));
                let blocks = ["text: |", "text: |+", "text: >-"];
                let mut lines = match (style, weight) {
                    (0, Some(weight)) => vec![format!("- {{name: {name}, {weight} }}{first}")],
                    (0, None) => vec![format!("- {{ name: {name} }}{first}")],
                    (1, Some(weight)) => vec![format!("- {weight}{first}"), format!("  name: {name}{second}")],
                    (2.., Some(weight)) => vec![format!("- name: {name}{first}"), format!("  {weight}{second}")],
                    (_, None) => vec![format!("- name: {name}{first}")],
                    (_, Some(weight)) => vec![format!("- {weight}")],
                };
                if style >= 3 {
                    lines.push(format!("  {}", blocks[name.len() % 3]));
                    lines.extend(["    weight: 1".to_owned(), String::new(), "    # x".to_owned(), String::new()]);
                }
                lines
            },
        )
    }

    fn file() -> impl Strategy<Value = String> {
        let document = (prop::collection::vec(backend(), 1..5), comment(), 0..3_usize);
        (prop::collection::vec(document, 1..4), any::<[bool; 3]>()).prop_map(|(documents, [crlf, bom, last])| {
            let mut lines = Vec::new();
            for (backends, comment, indent) in documents {
                lines.push(format!("---{}", if comment.trim().is_empty() { "" } else { " # next" }));
                lines.push(format!("refs:{comment}"));
                for line in backends.into_iter().flatten() {
                    lines.push(if line.is_empty() { line } else { " ".repeat(indent) + &line });
                }
            }
            let newline = if crlf { "\r\n" } else { "\n" };
            let mut text = if bom { "\u{feff}" } else { "" }.to_owned() + &lines.join(newline);
            if last {
                text += newline;
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_edit_keeps_all_other_bytes(text in file(), value in 0_u64..100_000) {
            let file = parse(&text);
            for document in file.documents() {
                let count = document.value()["refs"].as_array().map_or(0, Vec::len);
                for index in 0..count {
                    let path = field(&format!("refs[{index}].weight"));
                    let before = document.locate(&path);
                    let after = file.edit(document.index(), &[Edit { field: path.clone(), value }]);
                    let after = after.unwrap_or_else(|error| panic!("{error} in {text:?}"));
                    let place = parse(&after).documents()[document.index()].locate(&path).expect("the new weight");
                    let written = &after[place.span.clone()];
                    prop_assert_eq!(written.trim_matches(['"', '\'']), value.to_string());
                    match before {
                        Some(before) => {
                            prop_assert_eq!(&after[..place.span.start], &text[..before.span.start]);
                            prop_assert_eq!(&after[place.span.end..], &text[before.span.end..]);
                            prop_assert_eq!(written.starts_with(['"', '\'']), text[before.span].starts_with(['"', '\'']));
                        }
                        None => {
                            let added = after.len() - text.len();
                            let entry = format!("weight: {value}");
                            let at = after.bytes().zip(text.bytes()).take_while(|(after, text)| after == text).count();
                            prop_assert_eq!(&after[at + added..], &text[at..]);
                            prop_assert!(added >= entry.len() + 2 && after.contains(&entry));
                        }
                    }
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-a-z0-9:{}\\[\\],&*!|>'\"%#~ \n\r\té?.<]{0,60}") {
            if let Ok(file) = File::parse("any.yaml", text.as_bytes()) {
                for document in file.documents() {
                    for (path, value) in leaves(document.value()) {
                        prop_assert!(document.locate(&path).is_some(), "{} in {:?}", path, text);
                        if let Ok(after) = file.edit(document.index(), &[Edit { field: path.clone(), value: 7 }]) {
                            let kept = value.is_string() || value.is_null() || value.is_number();
                            prop_assert!(kept, "{} in {:?}", path, text);
                            prop_assert!(after.contains('7'));
                        }
                    }
                }
            }
        }

        #[test]
        fn both_readers_agree_about_values(text in file()) {
            let documents = serde_yaml::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
            let expected: Vec<Value> = documents.map(|document| Value::deserialize(document).expect("YAML")).collect();
            let found: Vec<Value> = parse(&text).documents().iter().map(|document| document.value().clone()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn both_readers_agree_about_whatever_both_read(parts in prop::collection::vec(part(), 1..16)) {
            let text = parts.concat();
            let Ok(file) = File::parse("any.yaml", text.as_bytes()) else { return Ok(()) };
            let documents = serde_yaml::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
            let mut expected = Vec::new();
            for document in documents {
                let Ok(value) = Value::deserialize(document) else { return Ok(()) };
                expected.push(value);
            }
            expected.retain(|value| !value.is_null());
            let found: Vec<Value> = file.documents().iter().map(|document| document.value().clone()).collect();
            prop_assert_eq!(found, expected, "{:?}", text);
        }

        #[test]
        fn both_readers_agree_about_scalars(text in "[-+]?(0[xob]?)?[0-9a-fA-F_.:]{0,8}([eE][-+]?[0-9]{1,3})?|[0-9]{1,45}|[~a-zA-Z]{1,5}") {
            prop_assume!(!text.ends_with(':'));
            let file = File::parse("any.yaml", format!("- {text}").as_bytes());
            let witness = serde_yaml::from_str::<Value>(&format!("- {text}"));
            match (file, witness) {
                (Ok(file), Ok(witness)) => prop_assert_eq!(file.documents()[0].value(), &witness),
                // Infinity is null to the witness and a large number approximate; here both are mistakes.
                (Err(_), Ok(witness)) => prop_assert!(witness[0].is_null() || witness[0].is_f64(), "{witness}"),
                (Ok(file), Err(error)) => prop_assert!(false, "{error}: {:?}", file.documents()[0].value()),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
