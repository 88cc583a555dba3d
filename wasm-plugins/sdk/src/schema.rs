//! What a configuration may hold.

/// Makes the component tell its configuration's JSON schema, so that configurations are checked before `open` sees them and
/// users are shown what they can set. The first of the schema's `examples` is what uploads are tested with.
#[macro_export]
macro_rules! export_schema {
    ($schema:expr) => {
        const _: () = {
            struct Component;
            impl $crate::bindings::configurable::exports::specula::policy::configuration::Guest for Component {
                fn schema() -> String {
                    ::std::borrow::ToOwned::to_owned($schema)
                }
            }
    $crate::bindings::configurable::export_configurable!(Component with_types_in $crate::bindings::configurable);
        };
    };
}
