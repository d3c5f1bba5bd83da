"""Static files with hashed names, compressed once at `collectstatic` and served by WhiteNoise for ever."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class ManifestStorage(CompressedManifestStaticFilesStorage):
    """Rewrites `url()` and `@import` in style sheets and the static `import` statements of ES modules.

    Source map comments stay as they are: vendored files carry them, and their maps are not shipped.
    """

    support_js_module_import_aggregation = True
    patterns = (
        (
            "*.css",
            (
                r"""(?P<matched>url\(['"]{0,1}\s*(?P<url>.*?)["']{0,1}\))""",
                (r"""(?P<matched>@import\s*["']\s*(?P<url>.*?)["'])""", """@import url("%(url)s")"""),
            ),
        ),
    )
