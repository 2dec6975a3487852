//! Dictionaries: what sources may look like, what a compiled file answers, and that no bytes make it crash.

use std::io::Write;

use penstock_features::{Dictionary, DictionaryError};
use proptest::prelude::*;

fn compiled(source: &[u8], name: &str) -> Result<Dictionary, DictionaryError> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join(name), folder.path().join("compiled"));
    std::fs::write(&from, source).unwrap();
    Dictionary::compile(&from, &to)?;
    let opened = Dictionary::open(&to)?;
    assert!(opened.verify());
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no temporary file is left"
    );
    Ok(opened)
}

fn values(dictionary: &Dictionary) -> Vec<String> {
    dictionary
        .values()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

#[test]
fn a_value_a_line_with_its_line_number_as_index() {
    let found = compiled("Paris\nRome\n\n Oslo \nZürich".as_bytes(), "a.txt").unwrap();
    assert_eq!(values(&found), ["Paris", "Rome", "", " Oslo ", "Zürich"]);
    assert_eq!(found.get(b"Rome"), Some(2));
    assert_eq!(found.get(b""), Some(3));
    assert_eq!(found.get(b"Oslo"), None, "nothing is trimmed");
    assert_eq!(found.get("Zürich".as_bytes()), Some(5));
}

#[test]
fn line_ends_byte_order_mark_and_gzip_are_no_part_of_the_values() {
    let plain = compiled(b"a\nb\n", "a.txt").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"a\nb\n").unwrap();
    for (source, name) in [
        (b"a\r\nb\r\n".to_vec(), "a.txt"),
        (b"\xef\xbb\xbfa\nb".to_vec(), "a.txt"),
        (gzip.finish().unwrap(), "a.txt.gz"),
    ] {
        let other = compiled(&source, name).unwrap();
        assert_eq!(values(&other), ["a", "b"]);
        assert_eq!(other.sha256(), plain.sha256());
    }
    assert_ne!(
        compiled(b"b\na\n", "a.txt").unwrap().sha256(),
        plain.sha256(),
        "the order is part of the content"
    );
}

#[test]
fn an_empty_file_is_an_empty_dictionary_and_one_newline_is_the_empty_string() {
    assert_eq!(compiled(b"", "a.txt").unwrap().len(), 0);
    assert_eq!(compiled(b"", "a.txt").unwrap().get(b""), None);
    assert_eq!(values(&compiled(b"\n", "a.txt").unwrap()), [""]);
}

#[test]
fn a_duplicate_names_both_lines_and_leaves_no_file() {
    let error = compiled(b"a\nb\nc\nb\n", "a.txt").unwrap_err().to_string();
    assert!(
        error.ends_with("a.txt:4: \"b\" is already on line 2"),
        "{error}"
    );
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_line() {
    let error = compiled(b"a\n\xffb\n", "a.txt").unwrap_err().to_string();
    assert!(error.ends_with("a.txt:2: not UTF-8"), "{error}");
}

#[test]
fn a_truncated_gzip_is_an_error() {
    assert!(matches!(
        compiled(b"\x1f\x8b\x08", "a.gz"),
        Err(DictionaryError::Io { .. })
    ));
}

#[test]
fn a_failed_compile_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.txt"), folder.path().join("compiled"));
    std::fs::write(&from, "a\n").unwrap();
    Dictionary::compile(&from, &to).unwrap();
    std::fs::write(&from, "a\na\n").unwrap();
    Dictionary::compile(&from, &to).unwrap_err();
    assert_eq!(Dictionary::open(&to).unwrap().get(b"a"), Some(1));
}

#[test]
fn at_most_forty_bytes_an_entry_come_on_top_of_the_values() {
    let names: Vec<String> = (0..100_000).map(|i| format!("value number {i}")).collect();
    let bytes: usize = names.iter().map(String::len).sum();
    let found = Dictionary::from_values(&names).unwrap();
    let overhead = (found.size_bytes() - bytes) as f64 / names.len() as f64;
    assert!(overhead <= 40.0, "{overhead}");
    for (i, name) in names.iter().enumerate() {
        assert_eq!(found.get(name.as_bytes()), Some(i as u32 + 1));
    }
}

proptest! {
    #[test]
    fn every_value_is_found_at_its_place(words in prop::collection::hash_set(".{0,200}", 0..50)) {
        let words: Vec<String> = words.into_iter().collect();
        let found = Dictionary::from_values(&words).unwrap();
        prop_assert_eq!(values(&found), words.clone());
        for (i, word) in words.iter().enumerate() {
            prop_assert_eq!(found.get(word.as_bytes()), Some(i as u32 + 1));
        }
        prop_assert_eq!(found.get(b"something else \xff"), None);
    }

    #[test]
    fn random_files_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(Dictionary::open(&path).is_err());
    }

    #[test]
    fn damage_anywhere_never_crashes_and_is_seen_by_verify(at in any::<prop::sample::Index>(), byte in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let words: Vec<String> = (0..40).map(|i| format!("{i:>i$}")).collect();
        Dictionary::from_values(&words).unwrap().save(&path).unwrap();
        let mut image = std::fs::read(&path).unwrap();
        // The rest of the header line is padding.
        let at = match at.index(image.len()) { at @ 104..128 => at - 104, at => at };
        image[at] ^= byte;
        std::fs::write(&path, &image).unwrap();
        if let Ok(damaged) = Dictionary::open(&path) {
            for word in &words {
                damaged.get(word.as_bytes());
            }
            damaged.values().count();
            prop_assert!(!damaged.verify());
        }
    }
}
