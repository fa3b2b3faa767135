import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/**
 * Time, randomness and scheduling come from the caller (common/clock.ts, common/random.ts), so that a
 * simulation can replace them; see docs/design_decisions.md.
 */
const ambientTime = [
  ...['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'performance'].map((name) => ({
    name,
    message: 'Take a Clock or Scheduler (common/clock.ts) as a parameter.',
  })),
];
const ambientProperties = [
  { object: 'Date', property: 'now', message: 'Take a Clock (common/clock.ts) as a parameter.' },
  { object: 'Math', property: 'random', message: 'Take a Random (common/random.ts) as a parameter.' },
  { object: 'process', property: 'hrtime', message: 'Take a Clock (common/clock.ts) as a parameter.' },
  { object: 'process', property: 'nextTick', message: 'Take a Scheduler (common/clock.ts) as a parameter.' },
  ...['randomBytes', 'randomUUID', 'randomInt', 'getRandomValues', 'randomFillSync'].flatMap((property) => [
    { object: 'crypto', property, message: 'Take a Random (common/random.ts) as a parameter.' },
  ]),
];

/** A library that is imported from one small place per part; everything else takes what that place exports. */
const onlyFrom = (name, places) => ({ name, message: `Import ${name} only from ${places}.` });
const wrapped = {
  lmdb: 'node/storage/lmdb-state.ts',
  '@grpc/grpc-js': 'node/rpc/grpc.ts or client/grpc.ts',
  '@kubernetes/client-node': 'operator/runtime/kubernetes.ts',
};
const restrictedImports = (allowed) => [
  'error',
  {
    paths: [
      ...Object.entries(wrapped)
        .filter(([name]) => !allowed.includes(name))
        .map(([name, place]) => onlyFrom(name, place)),
      ...(allowed.includes('timers')
        ? []
        : ['node:timers', 'node:timers/promises', 'node:perf_hooks'].map((name) => ({
            name,
            message: 'Take a Scheduler or Clock (common/clock.ts) as a parameter.',
          }))),
      ...(allowed.includes('random')
        ? []
        : [
            {
              name: 'node:crypto',
              importNames: ['randomBytes', 'randomUUID', 'randomInt', 'getRandomValues', 'webcrypto'],
              message: 'Take a Random (common/random.ts) as a parameter.',
            },
          ]),
    ],
  },
];

export default tseslint.config(
  { ignores: ['dist/**', 'build/**', 'node_modules/**', 'proto/gen/**', '.kvcluster/**', '*.cjs'] },
  eslint.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js', '*.mjs'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-import-type-side-effects': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      'no-restricted-syntax': [
        'error',
        { selector: 'ExportDefaultDeclaration', message: 'Use named exports.' },
        { selector: 'TSEnumDeclaration', message: 'Use a union of literals.' },
        { selector: 'TSModuleDeclaration[kind="namespace"]', message: 'Use a module.' },
        {
          selector: 'NewExpression[callee.name="Date"][arguments.length=0]',
          message: 'Take a Clock (common/clock.ts) as a parameter.',
        },
      ],
      'no-restricted-globals': ['error', ...ambientTime],
      'no-restricted-properties': ['error', ...ambientProperties],
      'no-restricted-imports': restrictedImports([]),
      eqeqeq: 'error',
    },
  },
  {
    files: ['common/**'],
    rules: {
      'no-restricted-globals': 'off',
      'no-restricted-properties': 'off',
      'no-restricted-imports': restrictedImports(['timers', 'random']),
    },
  },
  { files: ['node/storage/lmdb-state.ts'], rules: { 'no-restricted-imports': restrictedImports(['lmdb']) } },
  {
    files: ['node/rpc/grpc.ts', 'client/grpc.ts'],
    rules: { 'no-restricted-imports': restrictedImports(['@grpc/grpc-js']) },
  },
  {
    files: ['operator/runtime/kubernetes.ts'],
    rules: { 'no-restricted-imports': restrictedImports(['@kubernetes/client-node']) },
  },
  {
    // Tests and scripts drive real processes and wait for them; they may look at the real clock.
    files: ['test/**', 'scripts/**'],
    rules: {
      'no-restricted-globals': 'off',
      'no-restricted-properties': 'off',
      'no-restricted-imports': 'off',
      'no-restricted-syntax': 'off',
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  {
    files: ['*.js', '*.mjs'],
    ...tseslint.configs.disableTypeChecked,
    rules: { ...tseslint.configs.disableTypeChecked.rules, 'no-restricted-syntax': 'off' },
  },
);
