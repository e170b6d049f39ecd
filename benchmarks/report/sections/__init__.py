"""A report's sections: sentences, tables, figures and videos."""
