//! One declaration for the closed word lists of the API: the Rust enum, its wire words and its schema.

/// Declares a field-less enum whose variants appear on the wire by their own name, or by the word after `=`.
///
/// Adds `ALL` (declaration order), `as_str`, `Display` and a schema with `enum` and `maxLength`. The length bound is not
/// redundant: the API server prices CEL rules by it and does not look at `enum`.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident $(= $word:literal)? ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name {
            $( $(#[$variant_meta])* $( #[serde(rename = $word)] )? $variant ),+
        }

        impl $name {
            /// Every value, in declaration order.
            $vis const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The word used on the wire.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => wire_enum!(@word $variant $($word)?) ),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: Vec<&str> = Self::ALL.iter().map(|value| value.as_str()).collect();
                let longest = words.iter().map(|word| word.len()).max().unwrap_or_default();
                schemars::json_schema!({ "type": "string", "enum": words, "maxLength": longest })
            }
        }
    };
    (@word $variant:ident) => { stringify!($variant) };
    (@word $variant:ident $word:literal) => { $word };
}

pub(crate) use wire_enum;

#[cfg(test)]
mod tests {
    wire_enum! {
        /// A list with a word that is not its variant's name.
        #[derive(Default)]
        pub(super) enum Sample {
            /// Plain.
            #[default]
            Plain,
            /// Renamed.
            Other = "an-other",
        }
    }

    #[test]
    fn words_agree_between_serde_display_and_schema() {
        for value in Sample::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
            assert_eq!(value.to_string(), value.as_str());
        }
        let schema = schemars::schema_for!(Sample);
        assert_eq!(
            schema.get("enum").unwrap(),
            &serde_json::json!(["Plain", "an-other"])
        );
        assert_eq!(schema.get("maxLength").unwrap(), 8);
        assert_eq!(Sample::default(), Sample::Plain);
    }
}
