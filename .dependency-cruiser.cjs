/** Who may import whom: common <- model, proto <- client <- node; common, model, proto, client <- operator. */
const part = (names) => `^(${names.join('|')})/`;
const forbid = (name, from, to, comment) => ({
  name,
  severity: 'error',
  comment,
  from: { path: from },
  to: { path: to },
});

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    forbid(
      'common-is-a-leaf',
      part(['common']),
      part(['model', 'proto', 'client', 'node', 'operator']),
      'common imports nothing of ours',
    ),
    forbid(
      'model-is-pure',
      part(['model']),
      part(['proto', 'client', 'node', 'operator']),
      'model knows only common',
    ),
    forbid(
      'proto-is-a-leaf',
      part(['proto']),
      part(['model', 'client', 'node', 'operator']),
      'proto knows only common',
    ),
    forbid(
      'client-stays-below',
      part(['client']),
      part(['node', 'operator']),
      'client is used by node and operator',
    ),
    forbid(
      'node-without-operator',
      part(['node']),
      part(['operator']),
      'node and operator never import each other',
    ),
    forbid(
      'operator-without-node',
      part(['operator']),
      part(['node']),
      'node and operator never import each other',
    ),
    forbid(
      'production-without-tests',
      part(['common', 'model', 'proto', 'client', 'node', 'operator']),
      part(['test', 'scripts']),
      'production never imports tests',
    ),
    {
      name: 'model-without-io',
      severity: 'error',
      comment: 'model is pure: no input, no output',
      from: { path: '^model/' },
      to: { dependencyTypes: ['core'], pathNot: '^(node:)?(crypto|zlib)$' },
    },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.js'],
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
    },
  },
};
