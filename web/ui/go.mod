module cordon/web/ui
