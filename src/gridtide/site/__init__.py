"""The site file: strict models, a loader that names file, line and key, the JSON schema. Imports no driver."""
