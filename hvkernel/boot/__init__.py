"""The composition root: the only part that knows both halves, the plugins and the build."""
